"""CIFAR-10 and CIFAR-100 as they were published: names of classes and files, checksums, forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._bench.cifar_files import read_batch, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Decoded = tuple[NDArray[np.uint8], NDArray[np.uint8]]

FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class Form:
    """A form that a set is published in.

    Attributes:
        archive: Name of the packed form.
        checksum: Of the archive, `"sha256:..."`.
        folder: In the archive; what it leaves when unpacked.
        files: To train on, in order, and last the one to evaluate on, with their checksums.
        read: Decodes the content of a file; takes its path, too, for messages.
    """

    archive: str
    checksum: str
    folder: str
    files: Mapping[str, str]
    read: Callable[[bytes, Path], Decoded]


@dataclass(frozen=True)
class Cifar:
    """One of the two sets.

    Attributes:
        name: What users call it.
        title: What texts call it.
        sizes: Of the archive and of the unpacked folder, for messages.
        classes: Their names by label.
        forms: The first is the one that is downloaded.
    """

    name: str
    title: str
    sizes: tuple[str, str]
    classes: tuple[str, ...]
    forms: tuple[Form, ...]


# The checksums of archives are those of TensorFlow Datasets and Keras, of pickled files torchvision's, of binary files
# those of TorchVision for Ruby.
CIFAR10 = Cifar(
    name="cifar10",
    title="CIFAR-10",
    sizes=("170 MB", "184 MB"),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    forms=(
        Form(
            archive="cifar-10-binary.tar.gz",
            checksum="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            folder="cifar-10-batches-bin",
            files={
                "data_batch_1.bin": "sha256:cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                "data_batch_2.bin": "sha256:a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                "data_batch_3.bin": "sha256:bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                "data_batch_4.bin": "sha256:014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                "data_batch_5.bin": "sha256:755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
                "test_batch.bin": "sha256:8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            },
            read=partial(read_records, header=1),
        ),
        Form(
            archive="cifar-10-python.tar.gz",
            checksum="sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            folder="cifar-10-batches-py",
            files={
                "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
                "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
                "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "md5:40351d587109b95175f43aff81a1287e",
            },
            read=partial(read_batch, key=b"labels"),
        ),
    ),
)
CIFAR100 = Cifar(
    name="cifar100",
    title="CIFAR-100",
    sizes=("169 MB", "184 MB"),
    classes=tuple(FINE.split()),
    forms=(
        Form(
            archive="cifar-100-binary.tar.gz",
            checksum="sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            folder="cifar-100-binary",
            files={
                "train.bin": "sha256:f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
                "test.bin": "sha256:d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
            },
            read=partial(read_records, header=2),
        ),
        Form(
            archive="cifar-100-python.tar.gz",
            checksum="sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            folder="cifar-100-python",
            files={
                "train": "md5:16019d7e3df5f24257cddd939b257f8d",
                "test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc",
            },
            read=partial(read_batch, key=b"fine_labels"),
        ),
    ),
)
SETS: Mapping[str, Cifar] = MappingProxyType({which.name: which for which in (CIFAR10, CIFAR100)})
