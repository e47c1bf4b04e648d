// Tables of the leaderboard's page sort by a column when its heading is pressed: by the first number in a cell, else by
// the letters. Without this script they are there all the same, in the order in which they were written.

function value(row, column) {
  return row.cells[column].textContent.trim();
}

function compare(first, second) {
  const numbers = [parseFloat(first), parseFloat(second)];
  if (!numbers.some(Number.isNaN)) {
    return numbers[0] - numbers[1];
  }
  return first.localeCompare(second, "en");
}

function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const descending = heads[column].getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const sorted = [...body.rows].sort((a, b) => compare(value(a, column), value(b, column)) * (descending ? -1 : 1));
  body.append(...sorted);
  for (const head of heads) {
    head.removeAttribute("aria-sort");
  }
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("article table")) {
  table.classList.add("sorts");
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column; press again to reverse";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, column));
    head.append(button);
  }
}
