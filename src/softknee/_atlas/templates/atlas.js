"use strict";
// Plots whose parameters can be moved, the filters of the index, and copy buttons. Formulas come from functions.js.
(() => {
  const POINTS = 401;
  const BESIDE = 1e-7; // how close to a kink its two sides are looked at, relatively to the reach
  const [JUMP, VISIBLE] = [8, 0.05]; // a step so much larger than those beside it is a jump
  const [LEFT, RIGHT, TOP, BOTTOM] = [44, 10, 10, 32];

  // A number that stands in a sum over a vector is handed over once for each of its entries.
  const argument = (name, values) =>
    Array.isArray(name) ? values[name[1]].map(() => values[name[0]]) : values[name];
  const call = (f, x, values) => f.at(x, ...f.of.map((name) => argument(name, values)));

  // First and second derivative where there is no formula for one: of the parabola through three points on x's side
  // of the next kink.
  function differences(f, x, values, kinks, order) {
    const h = order === 1 ? 1e-5 : 1e-3;
    let centre = x;
    for (const kink of kinks) if (Math.abs(centre - kink) < h) centre = kink + (x < kink ? -h : h) * 1.001;
    const [a, b, c] = [centre - h, centre, centre + h].map((at) => call(f, at, values));
    const second = (a - 2 * b + c) / (h * h);
    return order === 1 ? (c - a) / (2 * h) + (x - centre) * second : second;
  }

  function derivatives(entry, values, kinks) {
    const backward = entry.backward || entry.value;
    return [
      (x) => call(entry.value, x, values),
      (x) => (entry.slope ? call(entry.slope, x, values) : differences(backward, x, values, kinks, 1)),
      (x) => (entry.bend ? call(entry.bend, x, values) : differences(backward, x, values, kinks, 2)),
      (x) => call(backward, x, values),
    ];
  }

  function kinksOf(entry, values) {
    return [...entry.kinks.map((kink) => call(kink, 0, values)), ...entry.knots].filter(Number.isFinite);
  }

  function positions(kinks, reach) {
    const side = BESIDE * reach;
    const inside = kinks.filter((kink) => Math.abs(kink) < reach);
    const even = Array.from({ length: POINTS }, (_, i) => (2 * reach * i) / (POINTS - 1) - reach);
    const clear = even.filter((x) => inside.every((kink) => Math.abs(x - kink) >= side));
    return [...clear, ...inside.flatMap((kink) => [kink - side, kink + side])].sort((a, b) => a - b);
  }

  // Gaps at jumps; a single point far from its neighbours, where a formula is not defined, is put between them.
  function gapped(ys, xs) {
    const ordered = ys.filter(Number.isFinite).sort((a, b) => a - b);
    const [edge, last] = [Math.floor(ordered.length / 50), ordered.length - 1];
    const least = VISIBLE * (ordered[last - edge] - ordered[edge] || ordered[last] - ordered[0] || 0);
    const steps = ys.slice(1).map((y, i) => Math.abs(y - ys[i]));
    const line = ys.map((y) => (Number.isFinite(y) ? y : null));
    steps.forEach((_, i) => {
      const [before, step, behind, next] = [i - 1, i, i + 1, i + 2].map((j) => steps[j] || 0);
      const close = xs[i + 1] - xs[i] < 3 * BESIDE * xs[xs.length - 1];
      if (step > least && behind > least && Math.min(step, behind) > JUMP * Math.max(before, next)) {
        line[i + 1] = (ys[i] + ys[i + 2]) / 2;
        steps[i + 1] = 0;
      } else if (step > least && (close || step > JUMP * Math.max(before, behind))) line[i + 1] = null;
    });
    return line;
  }

  function sample(entry, values, reach) {
    const kinks = kinksOf(entry, values);
    const xs = positions(kinks, reach);
    const [value, slope, bend, backward] = derivatives(entry, values, kinks).map((f) => gapped(xs.map(f), xs));
    return { xs, value, slope, bend, backward };
  }

  // Ranges of the two panels: a function that grows fast, and a second derivative that would flatten the first, are
  // cut off.
  const withAir = (low, high) => [low - Math.max(0.06 * (high - low), 1e-3), high + Math.max(0.06 * (high - low), 1e-3)];
  const hull = (line) => {
    const there = line.filter((y) => y !== null);
    return there.length ? [Math.min(...there), Math.max(...there)] : [0, 1];
  };

  function valueRange(line, reach) {
    let [low, high] = hull(line);
    const most = Math.max(reach, 5);
    if (high - low > 3 * most) [low, high] = [Math.max(low, -1.1 * most), Math.min(high, 1.1 * most)];
    return withAir(Math.min(low, 0), Math.max(high, 0));
  }

  // The range of a line, with 0, without peaks that a few points alone reach.
  function trimmed(line) {
    const ordered = line.filter((y) => y !== null).sort((a, b) => a - b);
    if (!ordered.length) return [0, 1];
    const edge = Math.floor(ordered.length / 50);
    const [first, last] = [ordered[edge], ordered[ordered.length - 1 - edge]];
    const spread = 2 * Math.max(last - first, 1e-3);
    return [
      Math.min(0, Math.max(ordered[0], first - spread)),
      Math.max(0, Math.min(ordered[ordered.length - 1], last + spread)),
    ];
  }

  // What a second derivative is divided by that would dwarf the first one.
  function divisorOf(slope, bend) {
    const [first, second] = [slope, bend].map(trimmed).map(([low, high]) => high - low);
    const divisors = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
    return divisors.find((divisor) => second / divisor <= 3 * first) ?? 1000;
  }

  function slopeRange(slope, bend) {
    let [low, high] = trimmed(slope);
    const room = 0.75 * Math.max(high - low, 0.2);
    const [least, most] = hull(bend);
    [low, high] = [Math.max(Math.min(low, least), low - room), Math.min(Math.max(high, most), high + room)];
    return withAir(low, high);
  }

  // A range that moving parameters may widen, but not without end: the eye needs something that stays.
  function widened([low, high], [newLow, newHigh]) {
    const room = 2.5 * (high - low);
    return [Math.max(Math.min(low, newLow), low - room), Math.min(Math.max(high, newHigh), high + room)];
  }

  function ticks(low, high, about) {
    const rough = (high - low) / about;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10]
      .map((factor) => factor * power)
      .reduce((best, size) => (Math.abs(size - rough) < Math.abs(best - rough) ? size : best));
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
  }

  const number = (value, digits = 6) => String(Number(value.toPrecision(digits))).replace("-", "−");
  const pixel = (value) => value.toFixed(1).replace(/\.0$/, "");

  class Panel {
    constructor(holder) {
      this.holder = holder;
      this.title = holder.querySelector("svg > title").textContent;
      this.description = holder.querySelector("svg > desc").textContent;
    }

    draw(xs, lines, [low, high], { at, band }) {
      const width = Math.max(this.holder.clientWidth, 240);
      const height = Math.round(Math.min(Math.max(width * 0.66, 220), 330));
      const [start, end, floor, ceiling] = [LEFT, width - RIGHT, height - BOTTOM, TOP];
      const reach = xs[xs.length - 1];
      const across = (x) => start + ((x + reach) / (2 * reach)) * (end - start);
      // Far outside it stops, where no browser chokes on it.
      const up = (y) => floor + Math.min(Math.max((y - low) / (high - low), -10), 11) * (ceiling - floor);
      this.toX = (clientX) => {
        const box = this.holder.getBoundingClientRect();
        return Math.min(Math.max((2 * (clientX - box.left - start)) / (end - start) - 1, -1), 1) * reach;
      };
      const rows = ticks(low, high, 5).map(
        (y) => `<path class="grid" d="M${start} ${pixel(up(y))}H${end}"/>` +
          `<text x="${start - 6}" y="${pixel(up(y) + 3.5)}" text-anchor="end">${number(y)}</text>`
      );
      const columns = ticks(-reach, reach, 5).map(
        (x) => `<text x="${pixel(across(x))}" y="${floor + 15}" text-anchor="middle">${number(x)}</text>`
      );
      const path = (ys) => {
        let pen = "M";
        return ys.map((y, i) => {
          if (y === null) return (pen = "M"), "";
          const point = `${pen}${pixel(across(xs[i]))} ${pixel(up(y))}`;
          pen = "L";
          return point;
        }).join("");
      };
      const outline = (shape) => {
        const there = shape.x.map((x, i) => `${pixel(across(x))} ${pixel(up(shape.high[i]))}`);
        const back = shape.x.map((x, i) => `${pixel(across(x))} ${pixel(up(shape.low[i]))}`).reverse();
        return `<path class="band hue-0" d="M${[...there, ...back].join("L")}Z"/>`;
      };
      const marks = lines
        .filter((line) => line.mark)
        .map((line) => ({ ...line, y: line.mark(at) }))
        .filter(({ y }) => Number.isFinite(y) && y >= low && y <= high)
        .map(({ y, style }) => `<circle class="dots ${style}" cx="${pixel(across(at))}" cy="${pixel(up(y))}" r="4"/>`);
      const view = `${start} ${ceiling - 4} ${end - start} ${floor - ceiling + 8}`;
      this.holder.innerHTML =
        `<svg class="chart panel" role="img" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
        `<title></title><desc></desc>${rows.join("")}${columns.join("")}` +
        `<path class="axis" d="M${start} ${floor}H${end}"/>` +
        `<path class="zero" d="M${pixel(across(0))} ${floor}V${ceiling}"/>` +
        (low < 0 && high > 0 ? `<path class="zero" d="M${start} ${pixel(up(0))}H${end}"/>` : "") +
        `<text class="name" x="${end}" y="${floor + 29}" text-anchor="end">x</text>` +
        `<path class="cursor" d="M${pixel(across(at))} ${floor}V${ceiling}"/>` +
        `<svg x="${start}" y="${ceiling - 4}" width="${end - start}" height="${floor - ceiling + 8}" viewBox="${view}">` +
        (band ? outline(band) : "") +
        lines.map((line) => `<path class="line ${line.style}" d="${path(line.ys)}"/>`).join("") +
        `</svg>${marks.join("")}</svg>`;
      this.holder.querySelector("title").textContent = this.title;
      this.holder.querySelector("desc").textContent = this.description;
    }
  }

  class Plot {
    constructor(root) {
      const data = JSON.parse(document.getElementById("plot-data").textContent);
      this.entry = ATLAS[data.name];
      this.band = data.band;
      this.panels = [...root.querySelectorAll(".canvas")].map((holder) => new Panel(holder));
      this.form = root.querySelector("form");
      this.sliders = [...root.querySelectorAll("input[data-param]")];
      this.output = root.querySelector("output");
      this.values = structuredClone(this.entry.start);
      this.fillCompare(data.name);
      this.form.hidden = false;
      this.form.addEventListener("input", (event) => this.moved(event.target));
      this.form.addEventListener("reset", () => setTimeout(() => this.reset()));
      this.form.addEventListener("submit", (event) => event.preventDefault());
      this.panels.forEach((panel) => panel.holder.addEventListener("pointermove", (event) => this.pointed(panel, event)));
      new ResizeObserver(() => this.draw()).observe(this.panels[0].holder);
      this.reset();
    }

    get reach() {
      return Number(this.form.elements.reach.value);
    }

    fillCompare(own) {
      const names = Object.keys(ATLAS).filter((name) => name !== own).sort();
      this.form.elements.compare.append(...names.map((name) => new Option(ATLAS[name].title, name)));
    }

    reset() {
      this.values = structuredClone(this.entry.start);
      this.rescale();
      this.form.elements.at.value = 0.3 * this.reach;
      this.draw();
    }

    // The ranges are those of the defaults; they widen a little as parameters move.
    rescale() {
      const curves = sample(this.entry, this.entry.start, this.reach);
      this.divisor = divisorOf(curves.slope, curves.bend);
      this.ranges = [this.valueRange(curves), slopeRange(curves.slope, this.divided(curves.bend))];
      const at = this.form.elements.at;
      [at.min, at.max] = [-this.reach, this.reach];
    }

    valueRange({ value, backward }) {
      const more = [...(this.entry.backward ? backward : []), ...(this.shownBand ? [...this.band.low, ...this.band.high] : [])];
      return valueRange([...value, ...more], this.reach);
    }

    get shownBand() {
      return this.isMoved || this.reach !== this.band?.reach ? null : this.band;
    }

    divided(line) {
      return line.map((y) => (y === null ? y : y / this.divisor));
    }

    moved(input) {
      if (input.dataset.param) {
        const { param, entry } = input.dataset;
        const value = Number(input.value);
        if (input.value === "" || !Number.isFinite(value)) return;
        if (entry === undefined) this.values[param] = value;
        else this.values[param][Number(entry)] = value;
        for (const other of this.sliders) {
          if (other !== input && other.dataset.param === param && other.dataset.entry === entry) other.value = other.type === "number" ? Number(value.toPrecision(4)) : value;
        }
      }
      if (input.name === "reach") this.rescale();
      this.draw();
    }

    pointed(panel, event) {
      if (event.pointerType !== "mouse" || !panel.toX) return;
      this.form.elements.at.value = panel.toX(event.clientX);
      this.draw();
    }

    get isMoved() {
      return JSON.stringify(this.values) !== JSON.stringify(this.entry.start);
    }

    draw() {
      const { entry, values, reach } = this;
      const at = Number(this.form.elements.at.value);
      const curves = sample(entry, values, reach);
      const [f, slope, bend, backward] = derivatives(entry, values, kinksOf(entry, values));
      const first = [{ ys: curves.value, style: "main hue-0", mark: f }];
      const second = [
        { ys: this.divided(curves.bend), style: "main hue-2", mark: (x) => bend(x) / this.divisor },
        { ys: curves.slope, style: "main hue-1", mark: slope },
      ];
      if (entry.backward) first.unshift({ ys: curves.backward, style: "main dashed hue-1", mark: backward });
      const other = ATLAS[this.form.elements.compare.value];
      if (other) {
        const [g, h] = derivatives(other, other.start, kinksOf(other, other.start));
        first.unshift({ ys: gapped(curves.xs.map(g), curves.xs), style: "main dashed hue-6" });
        second.unshift({ ys: gapped(curves.xs.map(h), curves.xs), style: "main dashed hue-6" });
      }
      const [top, low] = this.ranges;
      const band = this.shownBand;
      this.panels[0].draw(curves.xs, first, widened(top, this.valueRange(curves)), { at, band });
      this.panels[1].draw(curves.xs, second, widened(low, slopeRange(curves.slope, this.divided(curves.bend))), { at });
      const shown = { x: at, "f(x)": f(at), "f′(x)": slope(at), "f″(x)": bend(at) };
      this.output.replaceChildren(
        ...Object.entries(shown).map(([name, value]) => {
          const item = document.createElement("span");
          item.append(Object.assign(document.createElement("i"), { textContent: name }), ` ${number(value, 5)}`);
          return item;
        })
      );
      document.querySelectorAll("[data-when-compared]").forEach((key) => (key.hidden = !other));
      document.querySelectorAll("[data-compared]").forEach((key) => (key.textContent = other ? other.title : ""));
      const scale = this.divisor === 1 ? "" : ` ÷ ${this.divisor}`;
      document.querySelectorAll("[data-divisor]").forEach((key) => (key.textContent = scale));
      document.querySelectorAll("[data-when-band]").forEach((key) => (key.hidden = !band));
    }
  }

  class Index {
    constructor(form) {
      this.form = form;
      this.list = document.getElementById("cards");
      this.items = [...this.list.children];
      this.cards = this.items.filter((item) => !item.classList.contains("head"));
      this.read();
      form.hidden = false;
      form.addEventListener("input", () => this.show(true));
      form.addEventListener("reset", () => setTimeout(() => this.show(true)));
      form.addEventListener("submit", (event) => event.preventDefault());
      window.addEventListener("hashchange", () => this.read());
    }

    read() {
      const state = new URLSearchParams(location.hash.slice(1));
      const has = (state.get("has") || "").split(",");
      for (const field of this.form.elements) {
        if (field.type === "checkbox") field.checked = has.includes(field.value);
        else if (field.name) field.value = state.get(field.name) || "";
      }
      this.show(false);
    }

    get state() {
      const data = new FormData(this.form);
      const chosen = [...data.entries()].filter(([name, value]) => name !== "has" && value);
      const has = data.getAll("has");
      return new URLSearchParams(has.length ? [...chosen, ["has", has.join(",")]] : chosen);
    }

    show(remember) {
      const state = this.state;
      const words = (state.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
      const has = (state.get("has") || "").split(",").filter(Boolean);
      const kept = this.cards.filter(({ dataset }) =>
        ["family", "kind", "adaptation", "cost"].every((field) => !state.get(field) || dataset[field] === state.get(field)) &&
        has.every((tag) => dataset.tags.split(",").includes(tag)) &&
        words.every((word) => dataset.search.includes(word)));
      this.cards.forEach((card) => (card.hidden = !kept.includes(card)));
      const key = state.get("sort");
      const order = {
        name: (a, b) => a.dataset.name.localeCompare(b.dataset.name),
        year: (a, b) => (a.dataset.year || 9999) - (b.dataset.year || 9999),
        price: (a, b) => (a.dataset.price || 1e9) - (b.dataset.price || 1e9),
      }[key];
      this.list.append(...(order ? [...this.cards].sort(order) : this.items));
      const families = new Set(kept.map(({ dataset }) => dataset.family));
      for (const item of this.items) {
        if (item.classList.contains("head")) item.hidden = Boolean(order) || !families.has(item.dataset.family);
      }
      document.getElementById("count").textContent = `${kept.length} of ${this.cards.length}`;
      document.getElementById("none").hidden = kept.length > 0;
      if (remember) history.replaceState(null, "", `#${state}`);
    }
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    let done = true;
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      getSelection().selectAllChildren(source);
      done = document.execCommand("copy");
    }
    const before = button.textContent;
    button.textContent = done ? "Copied" : "Select and copy";
    setTimeout(() => (button.textContent = before), 1500);
  }

  for (const root of document.querySelectorAll(".plot")) new Plot(root);
  for (const form of document.querySelectorAll("form.filters")) new Index(form);
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
})();
