"use strict";
/* Tables: a heading sorts its column, once more the other way; what is missing stays last. */
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("number"), down = head.ariaSort ? head.ariaSort === "ascending" : numeric;
      const worth = row => {
        const cell = row.cells[column], text = cell.dataset.value ?? cell.innerText.trim();
        return numeric ? parseFloat(text.replace("−", "-").replace(/[,\s+]/g, "")) : text;
      };
      const rows = [...body.rows].map(row => [worth(row), row]), missing = value => value === "" || value === "–" || Number.isNaN(value);
      rows.sort(([a], [b]) => missing(a) - missing(b) || (numeric ? a - b || 0 : a.localeCompare(b, "en", { numeric: true })) * (down ? -1 : 1));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.ariaSort = down ? "descending" : "ascending";
      body.append(...rows.map(([, row]) => row));
    });
  });
}
