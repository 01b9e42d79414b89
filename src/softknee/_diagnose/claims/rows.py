"""The claims, each with its verdict and what is right."""

from __future__ import annotations

from softknee._diagnose.claims import networks, shows
from softknee._diagnose.claims.ledger import PARTLY, UNSUPPORTED, WRONG, Claim

_ATLAS = "the corrections in the atlas (`softknee atlas`)"
_LOOKED = "Looked for by its words on the web, without a trace"

_FUNCTIONS = (
    Claim(
        "gelu-like-sigmoid",
        "GELU is shaped like a sigmoid, its right side only exceeds 1, and its gradient is 0 nowhere.",
        WRONG,
        "It is unbounded. Its slope is 0 near -0.75 and negative below, and in float32 it is exactly 0 from about -6.2"
        " on.",
        "Hendrycks & Gimpel 2016 (arXiv 1606.08415) for the definition",
        {
            "GELU at 10": (10.0, 1e-6),
            "place where its slope is 0": (-0.7518, 1e-4),
            "its lowest slope": (-0.128904, 1e-6),
            "place from which its slope is exactly 0 in float32": (-6.15, 0.1),
        },
        shows.gelu_shape,
        see=_ATLAS,
    ),
    Claim(
        "gelu-attention-lipschitz",
        "With GELU the attention map has a Lipschitz constant of at most 1.",
        WRONG,
        "GELU's own constant is 1.1289. Dot-product self-attention has none: the norm of its Jacobian grows with the"
        " square of the inputs' size.",
        "Kim, Papamakarios & Mnih 2021 (arXiv 2006.04710)",
        {
            "steepest slope of GELU": (1.128904, 1e-6),
            "norm of attention's Jacobian at inputs of size 3": (6.35, 0.01),
            "the same at size 30": (600.3, 0.1),
        },
        shows.attention_lipschitz,
    ),
    Claim(
        "bspline-module",
        "A spline activation can be had by evaluating SciPy's BSpline in the forward pass.",
        WRONG,
        "What is evaluated on detached arrays has no gradient to its input, nor to each coefficient; a factor such as"
        " the coefficients' mean gives all of them the same one. A basis of degree k on n knots has n - k - 1"
        " functions; more coefficients never act.",
        "torch's autograd",
        {
            "gradient to the input, detached": (0.0, 0.0),
            "spread of the coefficients' gradients, detached": (0.0, 1e-12),
            "gradient to the input, softknee's bspline": (1.207, 0.01),
        },
        shows.detached_spline,
        see="`softknee show bspline`",
    ),
    Claim(
        "rational-polyval",
        "A rational activation is the quotient of two calls of torch.polyval.",
        WRONG,
        "torch has no such function; numpy has.",
        "torch's documentation",
        {"functions of that name in torch": (0.0, 0.0)},
        shows.polyval,
        see="`softknee show rational`",
    ),
    Claim(
        "telu-is-elu",
        "TeLU is an ELU whose alpha is trained, and `where(x > 0, x, alpha * (exp(x) - 1))` implements it.",
        WRONG,
        "The name belongs to x tanh(exp(x)). The line as written has gradients that are no numbers from x = 89 on in"
        " float32; it needs expm1(min(x, 0)).",
        "Fernandez & Mali 2024 (arXiv 2412.20269)",
        {
            "gradients at 88 and 89 that are no numbers, as written": (1.0, 0.0),
            "the same with expm1(min(x, 0))": (0.0, 0.0),
            "TeLU at -1": (-0.352135, 1e-6),
            "ELU at -1": (-0.632121, 1e-6),
        },
        shows.trainable_elu,
        see=_ATLAS,
    ),
    Claim(
        "sgt-gamma",
        "SGT is Gamma(1.5) tanh(gamma x).",
        WRONG,
        "It is tanh of a scaled power of x with an exponent of its own on either side, each trained for a channel.",
        "doi 10.1038/s41598-022-19020-y",
        {"Gamma(1.5) tanh(x) far right": (0.886227, 1e-6), "softknee's sgt far right": (1.0, 1e-6)},
        shows.sgt_limit,
        see=_ATLAS,
    ),
    Claim(
        "nipuna-softplus",
        "NIPUNA is x above 0 and alpha softplus(x) below.",
        WRONG,
        "That jumps by alpha ln 2 at 0. Two independent implementations have the larger of x and x sigmoid(beta x); the"
        " paper itself was not at hand.",
        "`softknee cite nipuna`",
        {"softplus(x) just left of 0": (0.693147, 1e-6), "softknee's nipuna just left of 0": (0.0, 1e-9)},
        shows.nipuna_jump,
        see=_ATLAS,
    ),
    Claim(
        "sigmoid-hessian",
        "The Hessian of a sigmoid unit's loss is s (1 - s) (1 - 2 s) x_i x_j.",
        WRONG,
        "That is the Hessian of the unit's output. That of the cross-entropy is s (1 - s) x_i x_j, never negative.",
        "two derivatives",
        {
            "largest difference from the Hessian of the output": (0.0, 1e-12),
            "largest difference from the Hessian of the cross-entropy": (1.18, 0.01),
        },
        shows.sigmoid_hessian,
    ),
    Claim(
        "sigmoid-1943",
        "McCulloch and Pitts used the sigmoid in 1943.",
        WRONG,
        "Their units were steps: all or nothing.",
        "McCulloch & Pitts 1943, whose first assumption it is",
        see=_ATLAS,
    ),
    Claim(
        "lstm-tanh-path",
        "In an LSTM the derivative of a cell state by the one before is tanh'(...) W_c.",
        WRONG,
        "The direct path is the forget gate, a sigmoid: that is the point of the LSTM. The other paths go through the"
        " hidden state.",
        "Gers, Schmidhuber & Cummins 2000, where the gate is introduced",
        {"largest difference from the forget gate": (0.0, 1e-12)},
        shows.lstm_path,
        see=_ATLAS,
    ),
)

_SIGNALS = (
    Claim(
        "default-init-he",
        "PyTorch initializes linear layers as He et al. proposed for ReLU.",
        WRONG,
        "The default draws weights uniformly within 1 / sqrt(fan-in), of variance 1 / (3 fan-in): a sixth of what keeps"
        " the signal of a ReLU network; and random biases. `softknee.gain` says what an activation needs.",
        "torch.nn.Linear.reset_parameters; pytorch issues 15314, 57109, 129302",
        {
            "fan-in times variance, torch's default": (1 / 3, 0.003),
            "fan-in times variance that ReLU needs": (2.0, 1e-9),
        },
        shows.default_initialization,
        see=_ATLAS,
    ),
    Claim(
        "depth-kills-relu",
        "The deeper a network, the more of its ReLUs are inactive.",
        PARTLY,
        "It holds for the default initialization: the inputs collapse onto each other layer by layer, so that each unit"
        " is on for all of them or off for all of them, half of the units either way. With weights scaled for ReLU and"
        " no biases most units are on for some inputs and off for others.",
        "the ordered phase of Poole et al. 2016 (arXiv 1606.05340) and Schoenholz et al. 2017 (arXiv 1611.01232)",
        {
            "share in the deep layers, torch's default": (0.49, 0.06),
            "share in the deep layers, weights scaled for ReLU and no biases": (0.12, 0.06),
        },
        networks.silent_by_depth,
        see=_ATLAS,
    ),
    Claim(
        "dying-relu-product",
        "A ReLU network is dead with a probability of prod_l Phi(-mu_l / sigma_l).",
        WRONG,
        "A layer is dead when all of its units are off, and the network when any layer is. For one input, symmetric"
        " weights and no biases that is 1 - prod_l (1 - 2^-width_l), `softknee.diagnostics.born_dead`; for sets of"
        " inputs there are bounds.",
        "Lu et al. 2019 (arXiv 1903.06733); Rister & Rubin 2020 (arXiv 2007.06192)",
        {
            "share of dead networks": (0.4871, 0.0075),
            "1 - prod(1 - 2^-width)": (0.487091, 1e-6),
            "the product of single units' probabilities": (0.03125, 1e-9),
        },
        networks.dead_at_birth,
        see=_ATLAS,
    ),
    Claim(
        "accuracy-ranking",
        "One table of accuracies, of one seed and one learning rate, ranks activations; trained ones win.",
        WRONG,
        "Such a table can rank default initializations: with the gain matched and the rate tuned most of its spread is"
        " gone and the order is another. How much a gradient shrinks before training begins, shown here for the default"
        " initialization, ordered eleven activations much as one such table did (rank correlation 0.91, found after the"
        " fact). Trained functions of that table also had one set of parameters for all layers.",
        "docs/results/fashion-mlp.md; docs/guidance.md",
        {
            "factor under sigmoid": (1.4436e-7, 1e-10),
            "factor under gelu": (8.1267e-5, 1e-8),
            "factor under silu": (6.2908e-5, 1e-8),
            "factor under relu": (7.7160e-4, 1e-7),
            "factor under prelu": (9.8336e-4, 1e-7),
            "factor under tanh": (6.8346e-3, 1e-6),
        },
        shows.default_signal,
    ),
)

_CURVATURE = (
    Claim(
        "xi-index",
        "xi = E|H|_F / E|g|^2 measures an activation: 1.78 for ReLU, 0.92 for GELU, 0.61 for Mish.",
        WRONG,
        "It is no property of an activation: xi(c L) = xi(L) / c, it grows with the number of weights, and without"
        " bound where gradients vanish. The product of xi and the loss has no unit, but changes all along a training.",
        "the definition",
        {
            "xi of the loss over xi of ten times the loss": (10.0, 1e-6),
            "xi at the end of training over xi at its beginning": (254.0, 100.0),
        },
        networks.xi_index,
    ),
    Claim(
        "filter-normalisation",
        "Filter normalisation is alpha d / |d| + beta e / |e|.",
        WRONG,
        "Each filter of a direction takes the norm of the same filter of the weights. With directions of length 1, two"
        " networks that are the same function have different landscapes.",
        "Li et al. 2018 (arXiv 1712.09913), section 4",
        {
            "largest difference of the losses, directions of length 1": (514.6, 60.0),
            "largest difference of the losses, filter-normalised": (0.0, 1e-9),
        },
        networks.unit_directions,
    ),
    Claim(
        "relu-convex",
        "A study of 2023 proved that the loss of a ReLU network is piecewise convex.",
        WRONG,
        "Not in all weights together, not even within one region, as one weight behind another shows. At best it is"
        " convex in the weights of one layer within one region. No such study was found.",
        f"two derivatives. {_LOOKED}",
        {
            "lowest eigenvalue of the Hessian in both weights": (-0.97, 1e-9),
            "curvature in the first weight alone": (0.01, 1e-9),
        },
        shows.relu_convexity,
    ),
    Claim(
        "tanh-hessian",
        "The largest eigenvalue of the Hessian under tanh is 0.9.",
        WRONG,
        "It is a number of a network with its weights, data and loss. `softknee.diagnostics.curvature` measures it.",
        f"a computation. {_LOOKED}",
        {"largest eigenvalue, targets of size 1": (1.476, 0.02), "the same, targets of size 100": (33.5, 0.5)},
        networks.tanh_curvature,
    ),
    Claim(
        "leaky-relu-kernel",
        "The smallest eigenvalue of a leaky ReLU network's tangent kernel is at least its slope alpha.",
        WRONG,
        "It shrinks with the square of the inputs' length and is 0 for two equal inputs, whatever alpha (0.1 here).",
        f"a computation. {_LOOKED}",
        {
            "smallest eigenvalue, two inputs equal": (0.0, 1e-9),
            "smallest eigenvalue, three inputs": (1.827, 0.01),
            "smallest eigenvalue, inputs a tenth as long": (0.01827, 1e-4),
        },
        networks.leaky_kernel,
    ),
    Claim(
        "leaky-relu-rate",
        "Leaky ReLU improves the convergence of SGD from O(1 / sqrt(T)) to O(1 / T).",
        UNSUPPORTED,
        "Rates of SGD depend on convexity, smoothness and noise. A bound that depends on the leak exists for very wide"
        " networks and changes constants.",
        f"Guo, Li & Lerman 2024 (arXiv 2402.11942) for the bound. {_LOOKED}",
    ),
    Claim(
        "elu-fisher",
        "ELU increases the Fisher information by 23 %.",
        UNSUPPORTED,
        "What its paper argues is that means nearer to 0 bring the gradient closer to the natural gradient.",
        f"Clevert et al. 2016 (arXiv 1511.07289) for the argument. {_LOOKED}",
    ),
    Claim(
        "sigmoid-kernel",
        "The tangent kernel of a sigmoid network guarantees linear separability.",
        UNSUPPORTED,
        "Whether a kernel separates samples depends on them; `softknee.diagnostics.ntk` gives its spectrum and its"
        " alignment with the labels.",
        _LOOKED,
    ),
)

_SOURCES = (
    Claim(
        "swiglu-gain",
        "SwiGLU is best at beta = 1.7889 and gave LLaMA 2 and EVA-02 15 % accuracy.",
        UNSUPPORTED,
        "What is documented is that its outliers grow during long training in 8-bit floats.",
        "Fishman et al. 2024 (arXiv 2409.12517) for the outliers. Looked for the numbers on the web and in public"
        " code, without a trace",
        see=_ATLAS,
    ),
    Claim(
        "llm-activations",
        "Llama 3, GPT-4 and Gemini use GELU or ReLU.",
        WRONG,
        "Llama uses SwiGLU. What GPT-4 and Gemini use is not published, so nobody can check it.",
        "Touvron et al. 2023 (arXiv 2302.13971), section 2.2; `hidden_act` in the published configurations",
    ),
    Claim(
        "imagenet-81.3",
        "ResNet-50 reaches a top-1 accuracy of 81.3 % on ImageNet with GELU, or with NIPUNA.",
        UNSUPPORTED,
        "The same figure is printed for both, without a reference.",
        _LOOKED,
    ),
    Claim(
        "ghorbani-fisher",
        "Ghorbani et al. published on the Fisher information at ICLR 2019.",
        WRONG,
        "Ghorbani, Krishnan & Xiao published on the density of the Hessian's eigenvalues at ICML 2019.",
        "arXiv 1901.10159",
    ),
    Claim(
        "sgld-citation",
        "Stochastic gradient Langevin dynamics is due to Zhang et al.",
        WRONG,
        "It is due to Welling & Teh 2011. `softknee.diagnostics.langevin` is an implementation.",
        "Welling & Teh, Bayesian learning via stochastic gradient Langevin dynamics, ICML 2011",
    ),
    Claim(
        "unmatched-citations",
        "Results are ascribed to a 'Nature Quantum 2023' and the like.",
        UNSUPPORTED,
        "No journal of that name was found.",
        _LOOKED,
    ),
)

ROWS = (*_FUNCTIONS, *_SIGNALS, *_CURVATURE, *_SOURCES)
