"use strict";
/* Leaderboards: a number opens the runs it rests on; words and a protocol choose what is shown. */
{
  const { boards, outcomes, studies } = JSON.parse(document.getElementById("data").textContent);
  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const score = (value, digits) => value === null ? "–" : value.toFixed(digits).replace("-", "−");
  const place = (study, key) => [...studies[study].split("/"), "runs", key, "result.json"].map(encodeURIComponent).join("/");

  const runLine = board => ([study, key, seed, last, best, outcome]) => {
    const ending = outcomes[outcome], file = make("code", {}, key);
    return make("tr", {},
      make("td", { className: "number" }, String(seed)),
      make("td", { className: "number strong" }, score(last, board.digits)),
      make("td", { className: "number quiet" }, score(best, board.digits)),
      make("td", { className: ending === "done" ? "" : "warning" }, ending),
      make("td", {}, ending === "missing" ? file : make("a", { href: place(study, key) }, file)),
      make("td", { className: "quiet" }, studies[study]));
  };
  const runTable = (board, runs) => make("table", {},
    make("thead", {}, make("tr", {}, ...["Seed", `${board.metric}, last epoch`, "best epoch", "Outcome", "Run", "Study"].map((title, column) =>
      make("th", { scope: "col", className: column < 3 ? "number" : "" }, title)))),
    make("tbody", {}, ...runs.map(runLine(board))));

  const entries = [];
  for (const board of boards) {
    const section = document.getElementById(board.anchor), table = section.querySelector("table");
    const about = `${section.querySelector("h2").textContent} ${board.facts}`;
    [...table.tBodies[0].rows].forEach((row, position) => {
      const id = `${board.anchor}-runs-${position}`, name = row.cells[1].querySelector("code");
      const button = make("button", { type: "button", ariaExpanded: "false" });
      button.setAttribute("aria-controls", id);
      const entry = { board, section, row, id, words: `${about} ${row.textContent}`.toLowerCase(), runs: null };
      entry.open = opened => {
        if (opened && !entry.runs) {
          const cell = make("td", { colSpan: row.cells.length }, runTable(board, board.rows[position]));
          entry.runs = make("tr", { id, className: "runs" }, cell);
          row.after(entry.runs);
        } else if (!opened && entry.runs) {
          entry.runs.remove();
          entry.runs = null;
        }
        button.ariaExpanded = String(opened);
      };
      const toggle = event => {
        event.preventDefault();
        entry.open(!entry.runs);
        history.replaceState(null, "", entry.runs ? `#${id}` : location.pathname);
      };
      name.replaceWith(button);
      button.append(name);
      button.addEventListener("click", toggle);
      [...row.cells].filter((_, column) => column !== 1).forEach(cell => {
        const text = cell.querySelector("span"), link = make("a", { href: `#${id}`, tabIndex: -1 });
        text.replaceWith(link);
        link.append(text);
        link.addEventListener("click", toggle);
      });
      entries.push(entry);
    });
    /* Lists of runs are rows too, which sorting must not meet. */
    table.tHead.addEventListener("click", () => entries.forEach(entry => entry.board === board && entry.open(false)), true);
  }

  const show = () => {
    const entry = entries.find(({ id }) => `#${id}` === location.hash);
    if (entry) {
      entry.open(true);
      entry.row.scrollIntoView();
    }
  };
  addEventListener("hashchange", show);

  const words = make("input", { type: "search", placeholder: "words, such as gelu or AVX512", ariaLabel: "Show rows with these words" });
  const protocols = [...new Set(boards.map(board => board.protocol))];
  const choice = make("select", { ariaLabel: "Show a protocol" }, new Option("every protocol", ""), ...protocols.map(name => new Option(name, name)));
  const count = make("output");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    const filled = new Set();
    let shown = 0;
    for (const entry of entries) {
      const kept = (!choice.value || entry.board.protocol === choice.value) && wanted.every(word => entry.words.includes(word));
      entry.row.hidden = !kept;
      if (!kept) entry.open(false);
      if (kept) filled.add(entry.board.anchor);
      shown += kept;
    }
    for (const { anchor } of boards) {
      document.getElementById(anchor).hidden = !filled.has(anchor);
      document.querySelector(`nav a[href="#${anchor}"]`).hidden = !filled.has(anchor);
    }
    count.textContent = `${shown.toLocaleString("en")} of ${entries.length.toLocaleString("en")} rows`;
  };
  words.addEventListener("input", filter);
  choice.addEventListener("change", filter);
  document.querySelector("nav").before(make("form", { className: "filter", role: "search", onsubmit: event => event.preventDefault() }, words, choice, count));
  filter();
  show();
}
