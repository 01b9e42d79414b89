"use strict";
/* Surfaces: orthographic, far cells first, turned by drag and arrow keys. */
for (const host of document.querySelectorAll("[data-surface]")) {
  const { k, v, n, m, x, y, z, p, c, f } = JSON.parse(host.dataset.surface), stops = PALETTES[p], halfway = [-1, 0, 1];
  const canvas = document.createElement("canvas"), ink = canvas.getContext("2d"), at = i => v[i] ?? NaN;
  const height = (i, j) => (k === "grid" ? at(j * n + i) : k === "sum" ? (at(i) + at(j)) / 2 : Math.hypot(at(i), at(j)) / Math.SQRT2) / 999;
  const shade = part => {
    const place = (c[0] + (c[1] - c[0]) * part) * (stops.length - 1), s = Math.min(Math.floor(place), stops.length - 2);
    const mix = i => [s, s + 1].reduce((sum, t) => sum + parseInt(stops[t].substr(i, 2), 16) * (1 - Math.abs(place - t)), 0);
    return `rgb(${halfway.map(i => Math.round(mix(2 * i + 2)))})`;
  };
  const front = f ? [0, Math.PI / 2] : [0.55, 0.5];
  let [turn, tilt] = front, drawn = 0;
  const draw = () => {
    const w = drawn = host.clientWidth, h = Math.round(w * 0.76), fine = devicePixelRatio, soft = getComputedStyle(host).color;
    canvas.width = w * fine; canvas.height = h * fine;
    ink.scale(fine, fine);
    ink.font = "11px system-ui, sans-serif"; ink.textAlign = "center"; ink.textBaseline = "middle";
    const ca = Math.cos(turn), sa = Math.sin(turn), ce = Math.cos(tilt), se = Math.sin(tilt);
    const r = f ? h * 0.42 : w * 0.27, left = w * 0.44, top = h * (f ? 0.45 : 0.5) + r * 0.55 * ce;
    const place = (a, b, up = 0) => [left + r * (a * ca + b * sa), top + r * ((a * sa - b * ca) * se - 1.3 * up * ce)];
    const corner = (i, j) => f ? place(2 * i / n - 1, 2 * j / m - 1) : place(2 * i / (n - 1) - 1, 2 * j / (m - 1) - 1, height(i, j));
    const cell = (corners, line, width) => {
      ink.beginPath(); corners.forEach(to => ink.lineTo(...to)); ink.closePath();
      ink.strokeStyle = line; ink.lineWidth = width;
    };
    cell([place(-1, -1), place(1, -1), place(1, 1), place(-1, 1)], soft, 0.6); ink.stroke();
    for (let a = 0; a < n + f - 1; a++) for (let b = 0; b < m + f - 1; b++) {
      const i = sa < 0 ? n - 2 - a : a, j = ca < 0 || f ? b : m - 2 - b;
      const mean = f ? height(i, j) : (height(i, j) + height(i + 1, j) + height(i, j + 1) + height(i + 1, j + 1)) / 4;
      if (isNaN(mean)) continue;
      ink.fillStyle = shade(mean);
      cell([corner(i, j), corner(i + 1, j), corner(i + 1, j + 1), corner(i, j + 1)], f ? ink.fillStyle : "#0005", f || 0.4);
      ink.fill(); ink.stroke();
    }
    for (let s = 0; s < 48; s++) { ink.fillStyle = shade(1 - s / 47); ink.fillRect(w - 32, h * (0.2 + 0.01 * s), 8, h * 0.01 + 0.6); }
    ink.fillStyle = soft;
    for (const s of halfway) {
      ink.fillText(x[s + 1], ...place(0.95 * s, ca < 0 ? 1.17 : -1.17));
      ink.fillText(y[s + 1], ...place(sa > 0 ? 1.17 : -1.17, 0.95 * s));
    }
    ink.textAlign = "right";
    ink.fillText(z[1], w - 2, h * 0.16); ink.fillText(z[0], w - 2, h * 0.73);
  };
  const move = (across, up) => { turn += across; tilt = Math.min(Math.max(tilt + up, 0.05), Math.PI / 2); draw(); };
  const keys = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, 0.08], ArrowDown: [0, -0.08] };
  canvas.role = "img"; canvas.ariaLabel = host.querySelector("span").textContent + (f ? "" : " Drag it or use the arrow keys to turn it.");
  if (!f) {
    canvas.tabIndex = 0;
    canvas.onpointerdown = event => canvas.setPointerCapture(event.pointerId);
    canvas.onpointermove = event => event.buttons && move(event.movementX * -0.01, event.movementY * 0.01);
    canvas.ondblclick = () => { [turn, tilt] = front; draw(); };
    canvas.onkeydown = event => { if (keys[event.key]) { event.preventDefault(); move(...keys[event.key]); } };
  }
  host.replaceChildren(canvas);
  new ResizeObserver(() => host.clientWidth && host.clientWidth !== drawn && draw()).observe(host);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).onchange = draw;
}
