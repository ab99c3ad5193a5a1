// The page: pick a model, give it something, see the answer.

import { make, showJson, showOutputs } from "/answer.js";
import { addLatency, refresh } from "/status.js";
import { pictureAxes, readFile, tensor } from "/tensors.js";

const REFRESH_MS = 2000, MANY = 50;
// Longer lists of tensors are folded.
const MAX_OPEN = 6;
const at = (id) => document.getElementById(id);
// What is picked; `given` are the tensors from files, by input.
const picked = { model: null, typed: true, given: new Map() };

// The token lives in its field and nowhere else.
function ask(path, options = {}) {
  const token = at("token").value.trim();
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(path, { ...options, headers, cache: "no-store" });
}

async function askJson(path, options) {
  const answer = await ask(path, options);
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  if (answer.status === 401) {
    at("token").focus();
    throw new Error("the service asks for a token; enter it at the top of the page");
  }
  throw new Error(content.error ?? `the service answered ${answer.status}`);
}

async function guarded(what) {
  at("error").hidden = true;
  try {
    return await what();
  } catch (error) {
    at("error").textContent = error.message;
    at("error").hidden = false;
    return null;
  }
}

async function loadModels() {
  const index = await askJson("/v2/repository/index", { method: "POST", body: '{"ready":true}' });
  const names = [...new Set(index.map((entry) => entry.name))];
  const was = at("model").value;
  at("model").replaceChildren(...names.map((name) => make("option", {}, name)));
  if (names.includes(was)) at("model").value = was;
  if (!names.length) throw new Error("no model is ready yet");
  await loadVersions();
}

async function loadVersions() {
  const { versions } = await askJson(`/v2/models/${encodeURIComponent(at("model").value)}`);
  at("version").replaceChildren(make("option", { value: "" }, "newest"), ...versions.map((version) => make("option", {}, version)));
  await loadModel();
}

function path(kind) {
  const version = at("version").value ? `/versions/${encodeURIComponent(at("version").value)}` : "";
  const name = encodeURIComponent(at("model").value);
  return kind === "predict" ? `/models/${name}${version}/predict` : `/v2/models/${name}${version}${kind}`;
}

async function loadModel() {
  const wanted = path("");
  const [model, api] = await Promise.all([askJson(wanted), askJson("/openapi.json")]);
  // Another one was picked meanwhile.
  if (path("") !== wanted) return;
  const schema = api.paths[decodeURIComponent(path("predict"))]?.post.requestBody.content["application/json"].schema ?? {};
  Object.assign(picked, { model, typed: Boolean(schema["x-from-signature"]), given: new Map() });
  at("description").textContent = model.parameters.description;
  at("description").hidden = !model.parameters.description;
  const line = (kind) => (each) => make("tr", {}, ...[kind, each.name, each.datatype, each.shape.map((size) => (size < 0 ? "any" : size)).join(" × ") || "one value"].map((text) => make("td", {}, text)));
  at("signature").replaceChildren(...model.inputs.map(line("input")), ...model.outputs.map(line("output")));
  at("tensors").open = picked.typed && model.inputs.length + model.outputs.length <= MAX_OPEN;
  at("into").replaceChildren(...model.inputs.map((input) => make("option", {}, input.name)));
  const picture = model.inputs.find(pictureAxes);
  if (picture) at("into").value = picture.name;
  at("into-label").hidden = model.inputs.length < 2;
  at("files").hidden = !picked.typed;
  at("takes").textContent = picture ? "image, .npy or .json" : ".npy, .csv or .json";
  const example = schema.examples?.[0];
  at("json").value = example ? stringify(example) : "";
  at("json").placeholder = example ? "" : "The input is large: drop a file above.";
  showGiven();
  document.body.dataset.shown = wanted;
}

// Lists of numbers on one line each.
function stringify(value, indent = "") {
  const deeper = `${indent}  `;
  if (Array.isArray(value) && value.some((entry) => entry && typeof entry === "object")) {
    return `[\n${value.map((entry) => deeper + stringify(entry, deeper)).join(",\n")}\n${indent}]`;
  }
  if (value && typeof value === "object" && !Array.isArray(value)) {
    return `{\n${Object.entries(value).map(([key, entry]) => `${deeper}${JSON.stringify(key)}: ${stringify(entry, deeper)}`).join(",\n")}\n${indent}}`;
  }
  return JSON.stringify(value).replaceAll(",", ", ");
}

function showGiven() {
  const picture = picked.model.inputs.find((input) => input.name === at("into").value);
  at("normalise-label").hidden = !(picture && pictureAxes(picture) && picture.datatype !== "UINT8");
  at("given").replaceChildren(...[...picked.given].map(([name, { file, found }]) => {
    const remove = make("button", { type: "button", className: "plain" }, "Remove");
    remove.addEventListener("click", () => { picked.given.delete(name); showGiven(); });
    const shape = `${found.datatype} ${found.shape.join(" × ")}`;
    return make("li", {}, ...(found.canvas ? [found.canvas] : []), make("span", { className: "what" }, `${name} ← ${file.name}`, make("code", {}, shape)), remove);
  }));
  const isWhole = picked.model.inputs.every((input) => picked.given.has(input.name));
  at("json").closest("label").hidden = isWhole;
  at("how").textContent = picked.given.size ? "as binary tensors" : "as typed JSON";
}

async function take(file) {
  const input = picked.model.inputs.find((each) => each.name === at("into").value);
  if (/\.json$/i.test(file.name)) {
    const content = JSON.parse(await file.text());
    at("json").value = stringify(Array.isArray(content) ? { [input.name]: content } : content);
    return;
  }
  picked.given.set(input.name, { file, found: await readFile(file, input, at("normalise").checked) });
  showGiven();
}

function shapeOf(value) {
  const shape = [];
  for (let level = value; Array.isArray(level); level = level[0]) shape.push(level.length);
  return shape;
}

// The request: typed JSON, or binary tensors where a file gave an input.
function build() {
  const text = at("json").closest("label").hidden ? "{}" : at("json").value.trim() || "{}";
  let content;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new Error(`the request is not JSON: ${error.message}`);
  }
  if (!picked.given.size) return { path: path("predict"), body: JSON.stringify(content), headers: { "Content-Type": "application/json" } };
  const tensors = picked.model.inputs.map((input) => {
    const given = picked.given.get(input.name);
    if (given) return given.found;
    if (!(input.name in content)) throw new Error(`input ${input.name} is missing; drop a file or write it as JSON`);
    const shape = shapeOf(content[input.name]);
    return tensor(input, [content[input.name]].flat(Infinity), shape);
  });
  const inputs = tensors.map(({ name, datatype, shape, bytes }) => ({ name, datatype, shape, parameters: { binary_data_size: bytes.length } }));
  const head = new TextEncoder().encode(JSON.stringify({ inputs }));
  const headers = { "Inference-Header-Content-Length": `${head.length}`, "Content-Type": "application/octet-stream" };
  return { path: path("/infer"), body: new Blob([head, ...tensors.map(({ bytes }) => bytes)]), headers };
}

async function sendOne(request) {
  const start = performance.now();
  const content = await askJson(request.path, { method: "POST", body: request.body, headers: request.headers });
  addLatency(performance.now() - start);
  return content;
}

async function send(times) {
  at("send").disabled = at("many").disabled = true;
  await guarded(async () => {
    const request = build();
    let content = null;
    for (let turn = 0; turn < times; turn++) content = await sendOne(request);
    if (content.outputs && request.path.startsWith("/v2/")) showOutputs(at("answer"), content.outputs);
    else if (picked.typed) {
      showOutputs(at("answer"), Object.entries(content).map(([name, value]) => ({ name, shape: shapeOf(value), data: [value].flat(Infinity) })));
    } else showJson(at("answer"), content);
  });
  at("send").disabled = at("many").disabled = false;
}

function listen() {
  at("model").addEventListener("change", () => guarded(loadVersions));
  at("version").addEventListener("change", () => guarded(loadModel));
  at("token").addEventListener("change", () => guarded(loadModels));
  at("into").addEventListener("change", showGiven);
  at("send").addEventListener("click", () => send(1));
  at("many").addEventListener("click", () => send(MANY));
  at("file").addEventListener("change", async () => {
    const [file] = at("file").files;
    if (file) await guarded(() => take(file));
    at("file").value = "";
  });
  at("normalise").addEventListener("change", () => guarded(async () => {
    for (const { file } of picked.given.values()) if (file.type.startsWith("image/")) await take(file);
  }));
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      at("drop").classList.toggle("over", name === "dragover");
      const [file] = name === "drop" ? event.dataTransfer.files : [];
      if (file && picked.model && picked.typed) guarded(() => take(file));
    });
  }
}

listen();
guarded(loadModels);
refresh(ask);
setInterval(() => { if (!document.hidden) refresh(ask); }, REFRESH_MS);
