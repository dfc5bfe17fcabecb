"use strict";
(() => {
  const table = document.getElementById("posteriors");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const form = document.getElementById("filters");
  const shown = document.getElementById("shown");
  const choices = ["dataset", "method", "training", "radius"];
  let sorted = "";

  const keyOf = (row, number) => row.cells[number].dataset.key;

  function compare(first, second, number, kind, sign) {
    const a = keyOf(first, number);
    const b = keyOf(second, number);
    // What was not measured is neither small nor large: it stands last in either order.
    if (a === "" || b === "") return (a === "") - (b === "");
    if (kind === "number") return sign * (Number(a) - Number(b));
    return sign * a.localeCompare(b, "en");
  }

  function sort(number) {
    const head = heads[number];
    const kind = head.dataset.kind;
    const usual = kind === "number" ? "descending" : "ascending";
    const other = usual === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === usual ? other : usual;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    // From the page's own order, so that ties do not depend on what was sorted before.
    body.append(...[...rows].sort((a, b) => compare(a, b, number, kind, sign)));
    sorted = ` Sorted by ${head.textContent}, ${order}.`;
    report();
  }

  function filter() {
    const wanted = new FormData(form);
    const words = wanted.get("text").toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = `${row.textContent} ${row.dataset.words}`.toLowerCase();
      row.hidden = !(
        choices.every((name) => !wanted.get(name) || wanted.get(name) === row.dataset[name]) &&
        words.every((word) => text.includes(word))
      );
    }
    report();
  }

  function report() {
    const count = rows.filter((row) => !row.hidden).length;
    shown.textContent = `${count} of ${rows.length} lines.${sorted}`;
  }

  heads.forEach((head, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(number));
    head.replaceChildren(button);
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  // Fields are empty only after the event.
  form.addEventListener("reset", () => setTimeout(filter));
  form.hidden = false;
  filter();
})();
