// Shows an answer: bars for scores, a table for other numbers, JSON for all else.

const MAX_BARS = 10, MAX_ROWS = 40, MAX_COLUMNS = 16;

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function format(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-4 ? value.toExponential(3) : value.toPrecision(5);
}

export function showOutputs(place, outputs) {
  place.replaceChildren(...outputs.map(output));
}

// What a kit's own endpoint gives: a list of flat objects is a table.
export function showJson(place, content) {
  const lists = Object.entries(content).filter(([, list]) => Array.isArray(list) && list.length && list.every(isFlat));
  const parts = lists.map(([name, list]) => {
    const columns = Object.keys(list[0]);
    const rows = list.slice(0, MAX_ROWS).map((entry) => columns.map((column) => entry[column]));
    return make("div", { className: "output" }, title(name, `${list.length}`), table(columns, rows));
  });
  const rest = Object.keys(content).length > lists.length ? [make("pre", {}, JSON.stringify(content, null, 2).slice(0, 20000))] : [];
  place.replaceChildren(...parts, ...rest);
}

const isFlat = (entry) => entry && typeof entry === "object" && !Array.isArray(entry) && Object.values(entry).every((value) => typeof value !== "object" || value === null);

function title(name, shape) {
  return make("h3", {}, name, make("code", {}, shape));
}

function output({ name, shape, data }) {
  const columns = shape.length ? shape[shape.length - 1] : 1;
  const rows = columns ? data.length / columns : 0;
  const isScores = shape.length >= 1 && columns > 1 && rows <= 4 && data.every((value) => typeof value === "number");
  const body = isScores ? scores(data, rows, columns) : values(data, rows, columns);
  return make("div", { className: "output" }, title(name, shape.length ? shape.join(" × ") : "one value"), body);
}

function scores(data, rows, columns) {
  const place = make("div", { className: "bars" });
  const isShares = data.every((value) => value >= 0) && isWhole(data, rows, columns);
  const draw = (isSoftmax) => {
    place.replaceChildren();
    for (let row = 0; row < rows; row++) {
      const all = data.slice(row * columns, (row + 1) * columns);
      bars(place, isSoftmax ? softmax(all) : all, rows > 1 ? `row ${row}` : "", isShares || isSoftmax);
    }
  };
  draw(false);
  if (isShares) return place;
  const box = make("input", { type: "checkbox" });
  box.addEventListener("change", () => draw(box.checked));
  return make("div", {}, place, make("label", { className: "check small muted" }, box, "as probabilities (softmax)"));
}

// Each row's values add up to one.
function isWhole(data, rows, columns) {
  const sums = Array.from({ length: rows }, (_, row) => data.slice(row * columns, (row + 1) * columns).reduce((a, b) => a + b, 0));
  return sums.every((sum) => Math.abs(sum - 1) < 0.01);
}

function bars(place, all, name, isShares) {
  if (name) place.append(make("div", { className: "row-title" }, name));
  let order = all.map((_, index) => index);
  if (all.length > MAX_BARS) order = order.sort((a, b) => all[b] - all[a]).slice(0, MAX_BARS);
  const largest = Math.max(...order.map((index) => Math.abs(all[index])), Number.MIN_VALUE);
  for (const index of order) {
    const fill = make("span", { className: all[index] < 0 ? "fill below" : "fill" });
    fill.style.width = `${100 * Math.abs(all[index]) / (isShares ? 1 : largest)}%`;
    place.append(make("span", { className: "muted" }, `${index}`), make("span", { className: "track" }, fill),
      make("span", { className: "number" }, isShares ? `${(100 * all[index]).toFixed(1)} %` : format(all[index])));
  }
  if (all.length > order.length) place.append(make("div", { className: "row-title" }, `the largest ${order.length} of ${all.length}`));
}

function softmax(all) {
  const largest = Math.max(...all), powers = all.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / sum);
}

function values(data, rows, columns) {
  const lines = [];
  for (let row = 0; row < Math.min(rows, MAX_ROWS); row++) lines.push(data.slice(row * columns, row * columns + Math.min(columns, MAX_COLUMNS)));
  const shown = table(columns > 1 ? lines[0]?.map((_, index) => `${index}`) : null, lines);
  if (rows <= MAX_ROWS && columns <= MAX_COLUMNS) return shown;
  return make("div", {}, shown, make("p", { className: "muted small" }, `The first ${lines.length} rows and ${lines[0].length} columns of ${rows} × ${columns}.`));
}

function table(heads, rows) {
  const head = heads ? [make("thead", {}, make("tr", {}, make("th"), ...heads.map((text) => make("th", { scope: "col" }, text))))] : [];
  const body = rows.map((row, index) => make("tr", {}, make("th", { scope: "row" }, `${index}`), ...row.map((value) => make("td", {}, format(value)))));
  return make("div", { className: "scroll" }, make("table", { className: "values" }, ...head, make("tbody", {}, ...body)));
}
