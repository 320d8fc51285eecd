// Runs the modules of the console through the steps of an editor, with stubs for the browser and the service.
// `node console_page.mjs DIRECTORY` loads the modules from DIRECTORY, reads test data from the standard input and prints
// what the console shows as JSON.

import { readFileSync } from "node:fs";

class Element {
  constructor() { Object.assign(this, { nodes: [], attributes: {}, dataset: {}, on: {}, value: "", text: "", classList: { toggle() {} } }); }
  get textContent() { return this.text + this.nodes.map((node) => (typeof node === "string" ? node : node.textContent)).join(""); }
  set textContent(text) { [this.text, this.nodes] = [text, []]; }
  get children() { return this.nodes.filter((node) => typeof node !== "string"); }
  append(...nodes) { this.nodes.push(...nodes); }
  replaceChildren(...nodes) { [this.text, this.nodes] = ["", nodes]; }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, step) { this.on[name] = step; }
  showModal() { question = this.textContent; this.returnValue = answer; setTimeout(() => this.on.close(), 0); }
  scrollIntoView() {} focus() {} remove() {} replaceWith() {}
}

const directory = process.argv[2];
const elements = new Map();
const $ = (id) => elements.get(id) || elements.set(id, new Element()).get(id);
let answer = "", question = "", sent = null;
globalThis.document = { getElementById: $, createElement: () => new Element(), createElementNS: () => new Element(), body: new Element() };
globalThis.localStorage = { getItem: () => "en", setItem() {} };
globalThis.FormData = class { * [Symbol.iterator]() {} };

const version = (number, author, fields = {}) => ({ version: number, author, text: `text ${number}`, state: "draft", active: false, at: "2026-01-01T00:00:00Z", ...fields });
const outlets = [{ code: "cn", name: { en: "Central Desk", zh: "中央融媒" } }, { code: "cn.zj", name: {} }];
const slot = (id, title, utility, fields = {}) => ({
  slot: 1, control_ids: [], reasons: ["similar_to:gone"], detail: { utility, bonus: 0.004, p: { play: 0.05 } },
  item: { id, title: { en: title }, kind: "film", outlet: "cn", labels: [] }, ...fields,
});
const line = (id, price, how = "estimate") => ({ id, play_equivalents: price, how, control_id: id });
const receipt = {
  proven: true, utility: 0.3, utility_without: 0.4, expected_plays: 0.21, expected_plays_without: 0.25, value: 0.5, gap: 0, price: [line("floor", 0.0071), line("cap", 0), line("lead", 4e-6, "resolved")],
  targets: [{ id: "hills", origin: "cn", price: 0.02, delivered: 1.5, cost: 0.013 }],
  controls: ["floor", "cap", "lead"].map((id) => ({
    id, action: "quota", origin: id === "lead" ? "cn.zj" : "cn", enforcement: "legal", status: "met", reason: { code: "text", params: { text: "held" }, message: "held" }, achieved: 1, achieved_first: null,
    required: { at_least: id === "lead" ? null : 2, at_most: null, slot: id === "lead" ? 1 : null },
  })),
};
const page = (item) => ({ items: [item], fallback_level: "personal", receipt, policy_version: "cn@1+cn.zj@3", model_version: "20261125T020141Z" });
const pins = ["film-1", "gone"].map((item, n) => ({ origin: "cn", control: { id: `pin ${n}`, action: "pin", item, slot: n + 1 } }));
const trail = [
  { action: "items.upsert", subject: "", detail: { first: ["film-1", "film-2", "film-3", "film-4"], items: 500, updated: 0 } },
  { action: "policy.publish", subject: "cn", detail: { instead_of: 0, version: 1 } },
].map((row, n) => ({ seq: n, at: "2026-01-01T00:00:00Z", actor: "demo", hash: "0123456789", ...row }));
let versions = [version(3, "li"), version(2, "wang", { state: "published", active: true })];
const findings = () => [{ level: "warning", where: "controls[0]", code: "minimum_zero", params: {}, message: "a minimum of 0 has no effect" }];
const reply = (body, status = 200) => ({ ok: status < 400, status, json: async () => body });

globalThis.fetch = async (path, init = {}) => {
  if (path.endsWith("messages.en.json")) return reply(english);
  if (path.endsWith("messages.zh.json")) return reply(JSON.parse(readFileSync(`${directory}/messages.zh.json`, "utf8")));
  if (path.endsWith("/effective")) return reply({ effective: { version: "cn@2", weights: {}, controls: pins } });
  if (path.includes("/history?")) return reply({ versions, next_page_token: null });
  if (path.endsWith("/lint")) return reply({ findings: findings() });
  if (path.includes(":recommend")) return reply(page(JSON.parse(init.body).guided === false ? slot("film-1", "Juno", 0.08) : slot("desk-1", "Newsroom", -7e-6)));
  if (path === "/v1/model") return reply({ version: "20261125T020141Z", action_weights: { play: 1, complete: 0.5, like: 2, dislike: -3 } });
  if (path.endsWith("/items/film-1")) return reply({ item: { id: "film-1", title: { en: "Juno", zh: "朱诺" } } });
  if (path.includes("/items/")) return reply({ detail: "no such item" }, 404);
  if (!path.endsWith("/draft")) return reply({ entries: trail, next_page_token: null });
  sent = JSON.parse(init.body);
  if (sent.base_version < versions[0].version) return reply({ detail: "newer" }, 409);
  versions = [version(versions[0].version + 1, sent.author, { text: sent.text }), ...versions];
  return reply({ findings: findings(), version: versions[0] });
};

const { figures, messages, english, preview } = JSON.parse(readFileSync(0, "utf8"));
const unknown = { code: "new_code", params: {}, message: "not in the catalog" };
$("author").value = "me";
const { check, redraw, save, showPolicy } = await import(`${directory}/policy.js`);
const { i18n, loadMessages } = await import(`${directory}/i18n.js`);
const { courseChart } = await import(`${directory}/charts.js`);
const { showPage } = await import(`${directory}/page.js`);
const { changeClass, equivalents, signed, timeWithOffset } = await import(`${directory}/core.js`);
const output = {};
const versionState = () => [$("base").textContent, $("newer").textContent, sent && sent.base_version];

await loadMessages();
i18n.setOutlets(outlets);

await showPolicy("cn");
output.pins = $("controls").textContent;
output.trail = $("audit").textContent;
output.opened = versionState();
$("text").value = "my text";
await save(); // the editor cancels
output.refused = [...versionState(), question];
versions = [version(4, "zhao"), ...versions]; // saved by a colleague meanwhile
answer = "yes";
output.conflict = await save().then(() => 0, (error) => error.status);
output.after_conflict = versionState();
await save();
output.saved = versionState();
versions = [version(6, "li"), ...versions];
await showPolicy("cn");
output.later = versionState();

await check();
output.english = $("findings").textContent;
output.messages_in_english = [...messages, unknown].map((text) => i18n.message(text));
i18n.language = "zh";
await loadMessages();
redraw();
output.chinese = $("findings").textContent;
output.messages_in_chinese = [...messages, unknown].map((text) => i18n.message(text));

const course = (until) => courseChart({ course: [], since: "2026-01-01T00:00:00Z", until, amount: 1, delivered: 0, planned: 0, progress: 0, description: null }, 900).textContent;
output.time = timeWithOffset("2026-10-01T00:00:00Z");
output.charts = [course("2026-06-01T00:00:00Z"), course("2030-01-01T00:00:00Z")];

i18n.language = "en";
await showPage({ outlet: "cn", screen: "tv", surface: "home", viewer: "v" });
const [heads, rows] = $("receipt").nodes[0].nodes.map((part) => part.nodes);
output.page = { summary: $("summary").textContent, with: $("with").textContent };
output.receipt = rows.map((row) => row.nodes.map((cell) => cell.textContent));
output.heads = [heads[0].nodes.map((head) => head.textContent), ...rows.map((row) => row.nodes.map((cell) => cell.dataset.head))];
output.equivalents = figures.map((figure) => equivalents(figure));
output.changes = figures.map((figure) => [signed(figure), changeClass(figure)]);
output.target = $("receipt").nodes.slice(1).map((node) => node.textContent).join(" ");
const { show } = await import(`${directory}/preview.js`);
output.preview = ["en", "zh"].map((language) => {
  i18n.language = language;
  show(preview);
  return Object.fromEntries(["figures", "controls", "frontier", "example"].map((part) => [part, $(`preview-${part}`).textContent]));
});
const elementsOf = (node) => [node, ...(node.nodes ?? []).flatMap(elementsOf)];
output.red = elementsOf($("preview-controls")).filter((node) => node.attributes?.class?.includes("out-text")).map((node) => node.textContent);
console.log(JSON.stringify(output));
