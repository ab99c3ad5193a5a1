// Live numbers: of the requests of this page, and of the service from its own metrics.

const KEPT = 200;
const times = [];
const set = (id, text) => { document.getElementById(id).textContent = text; };
const ms = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(value < 100 ? 1 : 0)) + " ms";
let total = 0;

export function addLatency(value) {
  total += 1;
  times.push(value);
  if (times.length > KEPT) times.shift();
  const sorted = [...times].sort((a, b) => a - b);
  const quantile = (share) => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
  set("last", ms(value));
  set("p50", ms(quantile(0.5)));
  set("p99", ms(quantile(0.99)));
  set("count", total);
  draw(quantile(0.99) * 1.15);
}

function draw(top) {
  const step = 400 / Math.max(times.length - 1, 1);
  const points = times.map((value, at) => `${(at * step).toFixed(1)},${(88 - 84 * Math.min(value / top, 1)).toFixed(1)}`);
  if (points.length < 2) return;
  const svg = document.getElementById("spark");
  svg.querySelector(".line-path").setAttribute("d", `M${points.join("L")}`);
  svg.querySelector(".area-path").setAttribute("d", `M0,90L${points.join("L")}L400,90Z`);
}

let before = null;

// `ask(path)` fetches with the token.
export async function refresh(ask) {
  try {
    const ready = await ask("/ready");
    const { state } = await ready.json();
    const pill = document.getElementById("state");
    pill.textContent = state;
    pill.classList.toggle("ready", ready.ok);
    const answer = await ask("/metrics");
    if (answer.ok) show(read(await answer.text()));
  } catch {
    // The service is gone, or restarts; the next look says so again.
    const pill = document.getElementById("state");
    pill.textContent = "unreachable";
    pill.classList.remove("ready");
  }
}

// Prometheus' text: name -> values, whatever their labels.
function read(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{.*\})? ([^ ]+)$/.exec(line);
    if (match) found.set(match[1], [...(found.get(match[1]) ?? []), Number(match[2])]);
  }
  return found;
}

function show(metrics) {
  const sum = (name) => (metrics.get(name) ?? []).reduce((a, b) => a + b, 0);
  const workers = sum("deepkits_workers"), wanted = sum("deepkits_workers_wanted");
  set("workers", workers || wanted ? (workers === wanted ? workers : `${workers} of ${wanted}`) : "in process");
  set("waiting", sum("deepkits_waiting_requests"));
  const slow = (metrics.get("deepseek_request_latency") ?? []).filter((value) => value === value);
  set("p99-all", slow.length ? ms(Math.max(...slow)) : "–");
  const now = { at: performance.now(), requests: sum("deepkits_requests_total") };
  if (before) {
    const rate = 1000 * Math.max(0, now.requests - before.requests) / (now.at - before.at);
    set("rate", rate < 10 ? rate.toFixed(1) : rate.toFixed(0));
  }
  before = now;
}
