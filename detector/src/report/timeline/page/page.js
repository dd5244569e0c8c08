"use strict";
// Everything here was chosen by others, hostile ones among them: text goes into the page as text nodes and attributes of a
// fixed name, and never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const SEVERITIES = ["info", "low", "medium", "high", "critical"];
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const rank = (severity) => SEVERITIES.indexOf(severity);

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}
function shape(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

// Milliseconds since the Unix epoch, with what a Date has no digits for.
// A time that no calendar of a browser has, before the year 0, is the epoch.
const at = (time) => (Date.parse(time.slice(0, 19) + "Z") + Number("0" + time.slice(19, -1)) * 1000) || 0;
const clock = (time) => time.slice(0, 10) + " " + time.slice(11, 23);
const many = (count, one, more) => count.toLocaleString("en") + " " + (count === 1 ? one : more || one + "s");
function lasted(ms) {
  if (ms < 10) return ms.toFixed(1) + " ms";
  if (ms < 1000) return ms.toFixed(0) + " ms";
  if (ms < 60e3) return (ms / 1e3).toFixed(1) + " s";
  if (ms < 3600e3) return (ms / 60e3).toFixed(1) + " min";
  return ms < 86400e3 ? (ms / 3600e3).toFixed(1) + " h" : (ms / 86400e3).toFixed(1) + " d";
}
const badge = (severity) => element("span", { class: "badge " + severity }, severity);
const ownerOf = (incident) => (incident.owner.namespace ? incident.owner.namespace + "/" : "") + incident.owner.name;
const WHAT = {
  writes_refused: ["write refused", "writes refused"], unseal_failed: ["try to unseal failed", "tries to unseal failed"],
  other_mounts: ["other change of mounts", "other changes of mounts"], unsealed: ["unseal succeeded", "unseals succeeded"],
  shadowed: ["writable mount over the sealed root", "writable mounts over the sealed root"], seal_broken: ["broken seal"],
  written: ["write went through", "writes went through"], seal_mended: ["mended seal"], other: ["other event"],
};
const WHY = { lines_missing: "lines are missing", changed: "lines are not as they were written", not_watching: "the agent did not run",
  lost: "events were lost before they were written", blind: "the agent could not see" };

const steps = [];
data.incidents.forEach((incident, number) => incident.steps.forEach((step) => steps.push({ ...step, incident: number })));
for (const step of steps) {
  step.at = at(step.first_time);
  step.owner = ownerOf(data.incidents[step.incident]);
  step.place = [step.pod, step.container].filter(Boolean).join("/");
  step.what = [step.operation, step.path, step.new_path && "to " + step.new_path, step.kind !== "write_denied" && step.fstype,
    step.effect && step.effect !== "none" && "(" + step.effect + ")"].filter(Boolean).join(" ");
  step.ended = step.outcome === "succeeded" ? "succeeded" : step.errno || step.outcome || "";
  step.by = step.process ? step.process.comm + "[" + step.process.pid + "]" : "";
  step.through = step.outcome === "succeeded" || step.kind === "seal_broken";
  step.all = [step.what, step.place, step.owner, step.ended, step.by, step.node, step.attack.join(" "), step.process ? step.process.args.join(" ") : ""]
    .join("\n").toLowerCase();
}
steps.sort((one, other) => one.at - other.at || one.seq - other.seq);

// What is shown.
const filter = { pod: "", kind: "", severity: "info", text: "" };
const isShown = (step) => rank(step.severity) >= rank(filter.severity) && (!filter.kind || step.kind === filter.kind) &&
  (!filter.pod || step.owner === filter.pod || (step.pod && "pod " + step.pod === filter.pod)) && (!filter.text || step.all.includes(filter.text.toLowerCase()));

// The picture: how many events when, above a lane for each workload; in a lane the worse stand higher.
const LEFT = 190, WIDTH = 1200, BAND = 54, LANE = 46, LANES_MAX = 24;
let lanes = [], extent = [0, 1], view = [0, 1];
function setExtent() {
  const times = steps.map((step) => step.at);
  if (data.first_time) times.push(at(data.first_time), at(data.last_time));
  if (!times.length) times.push(0);
  extent = around(times);
  // At first what happened, not all that was watched.
  view = steps.length ? around(steps.map((step) => step.at)) : [...extent];
  extent = [Math.min(extent[0], view[0]), Math.max(extent[1], view[1])];
}
function around(times) {
  let low = Infinity, high = -Infinity;
  for (const time of times) { low = Math.min(low, time); high = Math.max(high, time); }
  const margin = Math.max((high - low) * 0.05, 0.5);
  return [low - margin, high + margin];
}
const x = (time) => LEFT + ((time - view[0]) / (view[1] - view[0])) * (WIDTH - LEFT - 10);
const timeAt = (px) => view[0] + ((px - LEFT) / (WIDTH - LEFT - 10)) * (view[1] - view[0]);
function mark(step, parent, cx, cy) {
  const size = { seal_broken: 7, mount_attempt: 6.5 }[step.kind] || 5;
  const look = "mark " + step.severity + (step.through ? " through" : "");
  const points = { mount_attempt: [[0, -1], [1, 0], [0, 1], [-1, 0]], write_observed: [[0, -1], [1, 0.8], [-1, 0.8]],
    seal_broken: [[-1, -1], [1, -1], [1, 1], [-1, 1]], seal_mended: [[-1, -1], [1, -1], [1, 1], [-1, 1]] }[step.kind];
  if (!points) return shape("circle", { class: look, cx, cy, r: size }, parent);
  return shape("polygon", { class: look, points: points.map(([px, py]) => cx + px * size + "," + (cy + py * size)).join(" ") }, parent);
}
const SPANS = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1800e3, 3600e3, 7200e3,
  10800e3, 21600e3, 43200e3, 86400e3, 172800e3, 604800e3, 1209600e3, 2592000e3, 7776000e3, 31536000e3];
function draw() {
  const picture = byId("picture");
  picture.replaceChildren();
  const shown = steps.filter(isShown);
  const owners = [...new Set(data.incidents.map(ownerOf))];
  lanes = owners.filter((owner) => shown.some((step) => step.owner === owner)).slice(0, LANES_MAX);
  const height = BAND + Math.max(lanes.length, 1) * LANE + 30;
  picture.setAttribute("viewBox", "0 0 " + WIDTH + " " + height);
  const clip = shape("clipPath", { id: "within" }, shape("defs", {}, picture));
  shape("rect", { x: LEFT - 8, y: 0, width: WIDTH - LEFT + 8, height }, clip);
  const inside = shape("g", { "clip-path": "url(#within)" }, picture);
  const wanted = (view[1] - view[0]) / 7;
  const apart = SPANS.find((span) => span >= wanted) || Math.ceil(wanted / SPANS[SPANS.length - 1]) * SPANS[SPANS.length - 1];
  for (let tick = Math.ceil(view[0] / apart) * apart; tick < view[1]; tick += apart) {
    shape("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height - 22 }, inside);
    const iso = new Date(tick).toISOString();
    if (x(tick) < LEFT + 34 || x(tick) > WIDTH - 36) continue;
    const label = shape("text", { x: x(tick), y: height - 7, "text-anchor": "middle" }, inside);
    label.textContent = apart < 1000 ? iso.slice(11, 23) : apart < 86400e3 ? iso.slice(11, 19) : iso.slice(0, 10);
  }
  for (const gap of data.gaps) {
    if (!gap.before) continue;
    const begin = Math.max(x(at(gap.after || gap.before)), 0), end = Math.min(Math.max(x(at(gap.before)), begin + 3), WIDTH);
    if (end <= begin) continue;
    shape("title", {}, shape("rect", { class: "gap", x: begin, y: 0, width: end - begin, height: height - 22 }, inside))
      .textContent = gap.node + ": " + WHY[gap.why];
  }
  const { begin_unix_s: first, span_s: width, counts } = data.density;
  const most = Math.max(1, ...counts.map((of) => of.reduce((sum, count) => sum + count, 0)));
  counts.forEach((of, number) => {
    const begin = Math.max(x((first + number * width) * 1000), LEFT), end = Math.min(x((first + (number + 1) * width) * 1000), WIDTH);
    const all = of.reduce((sum, count) => sum + count, 0);
    if (!all || end <= begin) return;
    const tall = Math.max((Math.log1p(all) / Math.log1p(most)) * (BAND - 14), 3);
    let y = BAND - 10;
    of.forEach((count, severity) => {
      if (!count) return;
      y -= (tall * count) / all;
      shape("rect", { class: "bar " + SEVERITIES[severity], x: begin, y, width: Math.max(end - begin - 0.5, 1.5), height: (tall * count) / all }, inside);
    });
  });
  shape("text", { x: 4, y: BAND - 24 }, picture).textContent = "all events";
  lanes.forEach((owner, number) => {
    const top = BAND + number * LANE;
    shape("line", { class: "grid", x1: 0, x2: WIDTH, y1: top, y2: top }, picture);
    const label = shape("text", { class: "owner", x: 4, y: top + LANE / 2 + 4 }, picture);
    label.textContent = owner.length > 25 ? owner.slice(0, 24) + "\u2026" : owner;
    shape("title", {}, label).textContent = owner;
    data.incidents.forEach((incident) => {
      if (ownerOf(incident) !== owner) return;
      const begin = Math.max(x(at(incident.first_time)) - 9, 0), end = Math.min(x(at(incident.last_time)) + 9, WIDTH + 9);
      if (end <= begin) return;
      shape("rect", { class: "span", x: begin, y: top + 3, width: end - begin, height: LANE - 6, rx: 6 }, inside);
    });
  });
  for (const step of [...shown].sort((one, other) => rank(one.severity) - rank(other.severity))) {
    const lane = lanes.indexOf(step.owner);
    if (lane < 0) continue;
    const made = mark(step, inside, x(step.at), BAND + lane * LANE + LANE - 8 - rank(step.severity) * 7.5);
    made.addEventListener("mouseenter", (event) => tell(step, event));
    made.addEventListener("mouseleave", () => { byId("tip").hidden = true; });
    made.addEventListener("click", () => goTo(step));
  }
  const left = owners.length - lanes.length;
  if (lanes.length === LANES_MAX && left > 0) shape("text", { x: 4, y: height - 7 }, picture).textContent = many(left, "more workload");
}
function tell(step, event) {
  const tip = byId("tip");
  tip.replaceChildren(element("b", {}, step.severity + " " + step.kind), element("br"), clock(step.first_time) + " " + step.node + " " + step.owner,
    element("br"), step.what + " " + step.ended, element("br"), step.by && "by " + step.by, step.count > 1 ? " \u00d7" + step.count : "");
  tip.hidden = false;
  const box = byId("picture").parentElement.getBoundingClientRect();
  tip.style.left = Math.min(event.clientX - box.left + 14, box.width - tip.offsetWidth - 8) + "px";
  tip.style.top = event.clientY - box.top + 16 + "px";
}
function goTo(step) {
  document.querySelectorAll("tr.marked").forEach((row) => row.classList.remove("marked"));
  step.row.classList.add("marked");
  step.row.scrollIntoView({ block: "center" });
}
function zoom(factor, fixed) {
  const middle = fixed === undefined ? (view[0] + view[1]) / 2 : fixed;
  const span = Math.min(Math.max((view[1] - view[0]) * factor, 0.05), extent[1] - extent[0]);
  const share = (middle - view[0]) / (view[1] - view[0]);
  show(middle - span * share, middle + span * (1 - share));
}
function show(begin, end) {
  const span = Math.min(end - begin, extent[1] - extent[0]);
  const from = Math.min(Math.max(begin, extent[0]), extent[1] - span);
  view = [from, from + span];
  draw();
}
function watchPicture() {
  const picture = byId("picture");
  const place = (event) => { const box = picture.getBoundingClientRect(); return ((event.clientX - box.left) / box.width) * WIDTH; };
  picture.addEventListener("wheel", (event) => { if (event.ctrlKey || document.activeElement === picture) { event.preventDefault(); zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(place(event))); } }, { passive: false });
  let from = null, brush = null;
  picture.addEventListener("pointerdown", (event) => { from = place(event); });
  picture.addEventListener("pointermove", (event) => {
    if (from === null || Math.abs(place(event) - from) < 4) return;
    if (!brush) brush = shape("rect", { class: "brush", y: 0, height: 4000 }, picture);
    const to = place(event);
    brush.setAttribute("x", Math.min(from, to));
    brush.setAttribute("width", Math.abs(to - from));
  });
  window.addEventListener("pointerup", (event) => {
    if (brush) { const ends = [timeAt(from), timeAt(place(event))].sort((one, other) => one - other); brush = null; show(...ends); }
    from = null;
  });
  picture.addEventListener("keydown", (event) => {
    const span = view[1] - view[0];
    const act = { "+": () => zoom(0.7), "-": () => zoom(1.4), ArrowLeft: () => show(view[0] - span / 8, view[1] - span / 8),
      ArrowRight: () => show(view[0] + span / 8, view[1] + span / 8), Home: () => show(...extent) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  byId("closer").addEventListener("click", () => zoom(0.6));
  byId("wider").addEventListener("click", () => zoom(1.6));
  byId("all").addEventListener("click", () => show(...extent));
}

function card(incident) {
  const span = at(incident.last_time) - at(incident.first_time);
  const made = element("details", { class: incident.severity }, element("summary", {}, badge(incident.severity), element("b", {}, ownerOf(incident)),
    element("span", {}, clock(incident.first_time) + " UTC, " + lasted(span)),
    element("span", { class: "faint" }, many(incident.count, "attempt") + " in " + many(incident.events, "event"))));
  made.open = rank(incident.severity) >= rank("high");
  made.append(element("ol", { class: "story", "aria-label": "Story" }, ...incident.story.map((phase) => {
    const words = WHAT[phase.what] || [phase.what];
    return element("li", { class: phase.severity }, many(phase.count, words[0], words[1]),
      element("span", { class: "faint" }, phase.first_time > incident.first_time ? " after " + lasted(at(phase.first_time) - at(incident.first_time)) : ""));
  })));
  if (incident.attack.length) made.append(element("p", {}, "MITRE ATT&CK: " + incident.attack.join(", ")));
  const where = element("ul", {}, ...incident.places.map((place) => element("li", { class: "mono" }, [place.pod && "pod " + place.pod,
    place.container && "container " + place.container, "on " + place.node].filter(Boolean).join(", "), element("br"),
    [place.image, place.image_digest].filter(Boolean).join(" @ "), element("br"),
    element("span", { class: "faint" }, [place.container_id, place.readonly_rootfs === true && "declared read-only", place.readonly_rootfs === false && "declared writable",
      place.privileged && "privileged"].filter(Boolean).join(", ")))));
  if (incident.events_in_other_places) where.append(element("li", {}, many(incident.events_in_other_places, "event") + " in more containers"));
  const tree = element("ul", { class: "tree" }, ...incident.processes.map((process) => {
    const own = process.steps.length > 0;
    const item = element("li", own ? { class: "own" } : {}, (process.depth ? "\u2514 " : "") + process.comms.join(" \u2192 ") + "[" + process.pid + "] ",
      process.exe && element("span", { class: "faint" }, process.exe), own && process.args.length ? element("div", { class: "faint" }, process.args.join(" ").slice(0, 300)) : "");
    item.style.setProperty("--depth", process.depth);
    return item;
  }));
  made.append(element("div", { class: "cols" }, element("div", {}, element("h3", {}, "Where"), where), element("div", {}, element("h3", {}, "Processes"), tree)));
  if (incident.events_left_out) made.append(element("p", { class: "faint" }, many(incident.events_left_out, "event") + " of lesser severity left out of the steps"));
  const button = element("button", { type: "button" }, "Show in the picture");
  button.addEventListener("click", () => { const margin = Math.max(span * 0.1, 1); show(at(incident.first_time) - margin, at(incident.last_time) + margin); byId("picture").scrollIntoView(); });
  made.append(button);
  return made;
}

const COLUMNS = [["Time", "at"], ["Severity", (step) => -rank(step.severity)], ["Workload", "owner"], ["Pod/container, node", "place"], ["Kind", "kind"],
  ["What", "what"], ["Result", "ended"], ["By", "by"], ["Technique", (step) => step.attack.join(" ")], ["Times", (step) => -step.count]];
function fillTable() {
  byId("rows").replaceChildren(...steps.map((step) => step.row));
}
function makeTable() {
  COLUMNS.forEach(([name, key]) => {
    const button = element("button", { type: "button" }, name);
    const value = typeof key === "string" ? (step) => step[key] : key;
    button.addEventListener("click", () => {
      steps.sort((one, other) => (value(one) < value(other) ? -1 : value(one) > value(other) ? 1 : one.at - other.at));
      fillTable();
    });
    byId("head").append(element("th", { scope: "col" }, button));
  });
  for (const step of steps) {
    const above = step.process ? step.process.ancestors.map((it) => it.comm).join(" < ") : "";
    step.row = element("tr", {}, element("td", { class: "time" }, clock(step.first_time)), element("td", {}, badge(step.severity)), element("td", {}, step.owner),
      element("td", {}, step.place, element("div", { class: "faint" }, step.node)), element("td", { class: "word" }, step.kind),
      element("td", { class: "mono" }, step.what, step.hint ? element("div", { class: "faint" }, step.hint) : ""), element("td", {}, step.ended),
      element("td", { class: "mono" }, step.by, above ? element("div", { class: "faint" }, "< " + above) : ""), element("td", {}, step.attack.join(" ")), element("td", {}, "\u00d7" + step.count));
  }
  fillTable();
}

function apply() {
  let shown = 0;
  for (const step of steps) {
    step.row.hidden = !isShown(step);
    shown += step.row.hidden ? 0 : 1;
  }
  data.incidents.forEach((incident, number) => { incident.card.hidden = !steps.some((step) => step.incident === number && !step.row.hidden); });
  byId("shown").textContent = many(shown, "step") + " of " + steps.length.toLocaleString("en");
  draw();
}
function choices(id, values, first) {
  byId(id).append(...(first ? [element("option", { value: "" }, first)] : []), ...values.map((value) => element("option", { value }, value)));
}
// What follows # is a filter, too, so that a link can show a part: #severity=high&pod=prod/web
function fromLink() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(filter)) {
    if (!asked.has(name)) continue;
    byId(name).value = asked.get(name);
    // What there is no choice for stays as it was.
    if (byId(name).value !== asked.get(name)) byId(name).value = filter[name];
    filter[name] = byId(name).value;
  }
}
function summary() {
  const nodes = data.nodes.map((node) => node.name);
  byId("span").textContent = data.first_time
    ? clock(data.first_time) + " to " + clock(data.last_time) + " UTC, " + many(data.events, "event") + " of " + (nodes.length > 4 ? many(nodes.length, "node") : nodes.join(", ")) : "No events.";
  const tile = (count, words, look) => element("li", look ? { class: look } : {}, element("b", {}, count.toLocaleString("en")), words);
  const told = data.incidents.length + data.incidents_left_out.incidents;
  byId("tiles").append(tile(told, told === 1 ? "incident" : "incidents"),
    ...SEVERITIES.slice().reverse().map((severity) => [severity, data.incidents.filter((it) => it.severity === severity).length]).filter(([, count]) => count)
      .map(([severity, count]) => element("li", { class: severity }, element("b", {}, count.toLocaleString("en")), badge(severity))),
    tile(data.count, "attempts"), tile(data.nodes.length, data.nodes.length === 1 ? "node" : "nodes"), tile(data.gaps.length + data.gaps_left_out, "gaps in the record"));
  byId("record").hidden = !data.gaps.length && !data.lines_left_out;
  byId("gaps").append(...data.gaps.map((gap) => element("li", {}, gap.node + ": " + WHY[gap.why] + (gap.count ? " (" + gap.count.toLocaleString("en") + ")" : "") + (gap.detail ? " " + gap.detail : ""),
    element("span", { class: "faint" }, " " + [gap.after && "after " + clock(gap.after), gap.before && "before " + clock(gap.before)].filter(Boolean).join(", ") + "; " + gap.file + ", line " + gap.line))));
  if (data.gaps_left_out) byId("gaps").append(element("li", {}, many(data.gaps_left_out, "more gap")));
  if (data.lines_left_out) byId("gaps").append(element("li", {}, many(data.lines_left_out, "line") + " of the files are no events"));
  const left = data.incidents_left_out;
  const folded = data.incidents.reduce((sum, incident) => sum + incident.events_left_out, 0);
  byId("foot").append(element("p", {}, "Made by rosentry timeline. An incident is what was attempted in one workload with no more than five minutes between one attempt and the next."),
    element("p", {}, left.incidents || folded ? "Left out, the least severe first: " + many(left.incidents, "incident") + " with " + many(left.events, "event") + ", and the steps of " + many(folded, "event") + " in the incidents told."
      : "Nothing was left out."), data.observed ? element("p", {}, many(data.observed, "write") + " that went through belong to no incident.") : "");
}
function keys() {
  const add = (words, make) => {
    const picture = shape("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" });
    picture.style.width = "16px";
    make(picture);
    byId("keys").append(element("span", { class: "key" }, picture, words), " ");
  };
  for (const [kind, words] of [["write_denied", "write"], ["mount_attempt", "mount"], ["seal_broken", "broken seal"]])
    add(words, (picture) => mark({ kind, severity: "info", through: kind === "seal_broken" }, picture, 8, 8));
  add("filled: it went through", (picture) => mark({ kind: "mount_attempt", severity: "info", through: true }, picture, 8, 8));
  for (const severity of SEVERITIES) add(severity, (picture) => shape("rect", { class: "bar " + severity, x: 2, y: 2, width: 12, height: 12 }, picture));
}

summary();
keys();
choices("pod", [...new Set([...steps.map((step) => step.owner), ...steps.filter((step) => step.pod).map((step) => "pod " + step.pod)])].sort(), "all");
choices("kind", [...new Set(steps.map((step) => step.kind))].sort(), "all");
choices("severity", SEVERITIES);
data.incidents.forEach((incident) => { incident.card = card(incident); byId("incidents").append(incident.card); });
if (!data.incidents.length) byId("incidents").append(element("p", {}, "None."));
makeTable();
setExtent();
watchPicture();
fromLink();
for (const name of Object.keys(filter)) byId(name).addEventListener("input", () => { filter[name] = byId(name).value; apply(); });
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () => { Object.assign(filter, { pod: "", kind: "", severity: "info", text: "" }); setTimeout(apply); });
window.addEventListener("hashchange", () => { fromLink(); apply(); });
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
apply();
document.documentElement.dataset.ready = "yes";
