// The page of a relay: who is in, what it carries, and the few things that can be done from here.
//
//     log-in ─▶ refresh() every few seconds ─▶ v1/status, history, networks, and the list of the tab that is open
//                                          ─▶ figures, charts, tables
//     a button ─▶ the question whether it is meant ─▶ kick, reserve, release ─▶ refresh()
//
// Rules:
//  1. A refresh follows the last one after PAUSE_MS, or after 20 times as long as that took, within LONGEST_MS, so that
//     a large relay is not kept busy; a page that nobody sees asks nothing.
//  2. What strangers chose, names above all, is set as text.

import {Chart} from "./chart.js";
import {bits, bytes, clock, count, delay, lasting, rate, time} from "./figures.js";
import {Refused, ask, logIn, logOut, renew, session} from "./relay.js";
import {Table} from "./table.js";
import {LANGUAGES, choose, language, translate, word} from "./words.js";

const PAUSE_MS = 2000;
const LONGEST_MS = 10e3;
const RENEWED_EACH_MS = 3600e3;
const NOTICE_MS = 8000;

const element = (id) => document.getElementById(id);

let severalNetworks = false;
let severalLimits = false;
let turn = 0;
let timer = null;
let noticeTimer = null;
let renewed = 0;
let seen = {at: 0, members: new Map()};

// What is shown

const keyOf = (item) => `${item.network} ${item.address}`;
const numberOf = (address) => address.split(".").reduce((number, part) => number * 256 + Number(part), 0);
// A device with a key has its fingerprint in place of a VMAC.
const deviceOf = ({vmac}) => (vmac.length === 16 ? `vmac:${vmac}` : `key:${vmac.replaceAll(" ", "")}`);
const called = (item) => (item.name ? `${item.name} (${item.address})` : item.address);

const ADDRESS = {name: "address", text: (item) => item.address, sort: (item) => numberOf(item.address)};
const NAME = {name: "name", text: (item) => item.name ?? ""};
const NETWORK = {name: "network", text: (item) => item.network, isNeeded: () => severalNetworks};
const LIMITS = {name: "limits", text: limitsOf, isNeeded: () => severalLimits, spare: true};
const SOURCE = {name: "source", text: (item) => item.source, spare: true};

/** A column of figures; `of` of an item may be null. */
function figures(name, of, format, more = {}) {
  const text = (item) => (of(item) === null ? "" : format(of(item)));
  return {name, text, sort: (item) => of(item) ?? -1, number: true, ...more};
}

/** What a member may carry: a sign that it is held, both ways, and what its quota has left. */
function limitsOf(member) {
  const parts = [
    member.held === null ? "" : "●",
    member.limit_down === null ? "" : `↓ ${bits(member.limit_down)}`,
    member.limit_up === null ? "" : `↑ ${bits(member.limit_up)}`,
    member.quota_left === null ? "" : word("quota_left", {bytes: bytes(member.quota_left)}),
  ];
  return parts.filter((part) => part !== "").join(" ");
}

const spare = {spare: true};
const members = new Table(
  element("members"),
  [
    ADDRESS,
    NAME,
    NETWORK,
    figures("in", (member) => member.inRate, rate),
    figures("out", (member) => member.outRate, rate),
    figures("in_total", (member) => member.bytes_in, bytes, spare),
    figures("out_total", (member) => member.bytes_out, bytes, spare),
    figures("drops", (member) => member.drops, count),
    LIMITS,
    figures("delay", (member) => member.queue_delay_ms, delay, spare),
    figures("since", (member) => Date.now() / 1000 - member.since, lasting, spare),
    SOURCE,
    {name: "program", text: (member) => `${member.os ?? ""} ${member.version ?? ""}`.trim(), spare: true},
  ],
  keyOf,
  [{name: "kick", run: kick}],
);
const leases = new Table(
  element("leases-table"),
  [
    ADDRESS,
    NAME,
    NETWORK,
    {name: "connected", text: (lease) => word(lease.connected ? "yes" : "no")},
    figures("last_seen", (lease) => lease.last_seen, time),
    figures("first_seen", (lease) => lease.first_seen, time, spare),
    figures("in_total", (lease) => lease.bytes_in, bytes, spare),
    figures("out_total", (lease) => lease.bytes_out, bytes, spare),
    SOURCE,
  ],
  keyOf,
  [{name: "reserve", run: reserveLease, fits: (lease) => !lease.reserved && lease.vmac !== null}],
);
const reservations = new Table(
  element("reservations-table"),
  [
    ADDRESS,
    {name: "name", text: (reservation) => reservation.device},
    NETWORK,
    {name: "configured", text: (one) => word(one.configured ? "in_configuration" : "with_command")},
  ],
  keyOf,
  [{name: "release", run: release, fits: (reservation) => !reservation.configured}],
);
const networks = new Table(
  element("networks"),
  [
    {name: "network", text: (network) => network.path},
    {name: "pool", text: (network) => network.pool ?? ""},
    figures("members", (network) => network.members, count),
    figures("addresses_used", (network) => network.addresses_used, count),
    figures("addresses_free", (network) => network.addresses_free, count),
    figures("rules", (network) => network.rules, count, spare),
    {name: "interface", text: (one) => `${one.interface ?? ""} ${one.own_address ?? ""}`.trim(), spare: true},
  ],
  (network) => network.path,
);
const charts = [
  new Chart(
    element("throughput"),
    [
      {name: "in", list: "bytes_in_per_s"},
      {name: "out", list: "bytes_out_per_s"},
    ],
    rate,
  ),
  new Chart(element("dropped"), [{name: null, list: "drops_per_s"}], (perSecond) => `${count(perSecond)}/s`),
];

/** Of each tab what it asks for beside the rest, and its tables. */
const TABS = {
  members: {path: "v1/members", tables: [members], show: (answer) => members.show(withRates(answer.members))},
  leases: {
    path: "v1/leases",
    tables: [leases, reservations],
    show: (answer) => {
      leases.show(answer.leases);
      reservations.show(answer.reservations);
    },
  },
  networks: {path: null, tables: [networks], show: () => {}},
};
let open = location.hash.slice(1) in TABS ? location.hash.slice(1) : "members";

/** Members with what they carried since they were seen last, by the second; null: they were not. */
function withRates(listed) {
  severalLimits = listed.some((member) => limitsOf(member) !== "");
  const at = performance.now();
  const seconds = (at - seen.at) / 1000;
  const now = new Map();
  for (const member of listed) {
    const before = seen.members.get(keyOf(member));
    const since = (figure) => (before === undefined ? null : Math.max(0, (member[figure] - before[figure]) / seconds));
    member.inRate = since("bytes_in");
    member.outRate = since("bytes_out");
    now.set(keyOf(member), {bytes_in: member.bytes_in, bytes_out: member.bytes_out});
  }
  seen = {at, members: now};
  return listed;
}

function showStatus(status) {
  element("which").textContent = status.public_url ?? status.listening.join(", ");
  document.title = `candy ${element("which").textContent}`;
  const figures = [
    ["members", count(status.members)],
    ["connections", `${count(status.connections)} / ${count(status.connections_most)}`],
    ["waiting", bytes(status.queued_bytes)],
    ["up", lasting(Date.now() / 1000 - status.since)],
    ["program", status.version],
  ];
  element("figures").replaceChildren(
    ...figures.map(([name, figure]) => {
      const pair = document.createElement("div");
      pair.appendChild(document.createElement("dt")).textContent = word(name);
      pair.appendChild(document.createElement("dd")).textContent = figure;
      return pair;
    }),
  );
  const reasons = Object.entries(status.drops).sort(([, one], [, other]) => other - one);
  element("reasons").textContent = reasons.map(([reason, dropped]) => `${reason} ${count(dropped)}`).join(" · ");
}

function showNetworks(listed) {
  severalNetworks = listed.length > 1;
  networks.show(listed);
  const select = element("reserve-network");
  select.hidden = !severalNetworks;
  const paths = listed.map((network) => network.path);
  if ([...select.options].map((option) => option.value).join("\n") === paths.join("\n")) return;
  select.replaceChildren(...paths.map((path) => new Option(path, path)));
}

// Refreshes

async function refresh() {
  clearTimeout(timer);
  turn += 1;
  const mine = turn;
  const began = performance.now();
  const tab = TABS[open];
  let pause = PAUSE_MS;
  try {
    if (Date.now() - renewed > RENEWED_EACH_MS) {
      await renew();
      renewed = Date.now();
    }
    const paths = ["v1/status", "v1/history", "v1/networks", ...(tab.path === null ? [] : [tab.path])];
    const [status, history, listed, answer] = await Promise.all(paths.map((path) => ask("GET", path)));
    if (mine !== turn) return;
    showStatus(status);
    for (const chart of charts) chart.draw(history);
    showNetworks(listed.networks);
    tab.show(answer);
    if (element("notice").dataset.kind === "gone") say("");
    const took = performance.now() - began;
    pause = Math.min(Math.max(PAUSE_MS, 20 * took), LONGEST_MS);
    element("refreshed").textContent = word("refreshed", {time: clock(Date.now() / 1000), ms: Math.round(took)});
  } catch (error) {
    if (mine !== turn) return;
    failed(error);
  }
  if (!element("relay").hidden && !document.hidden) timer = setTimeout(refresh, pause);
}

/** Say what has failed. Throws what is no failure of the relay or of the way to it. */
function failed(error) {
  if (error instanceof Refused && error.status === 401) {
    leave(word("forbidden"));
  } else if (error instanceof Refused) {
    say(error.message, "error");
  } else if (error instanceof TypeError) {
    say(word("gone"), "gone");
  } else {
    throw error;
  }
}

function say(text, kind = "done") {
  clearTimeout(noticeTimer);
  const notice = element("notice");
  notice.textContent = text;
  notice.dataset.kind = kind;
  notice.hidden = text === "";
  if (kind === "done") noticeTimer = setTimeout(() => say(""), NOTICE_MS);
}

// What can be done

function kick(member) {
  const path = `v1/members/${encodeURIComponent(member.address)}/kick?network=${encodeURIComponent(member.network)}`;
  return act("kick", "kicked", {name: called(member)}, () => ask("POST", path));
}

function reserveLease(lease) {
  return reserve(lease.address, deviceOf(lease), lease.network, lease.name ?? deviceOf(lease));
}

function reserve(address, device, network, name) {
  return act("reserve", "reserved", {address, name}, () => ask("POST", "v1/reservations", {address, device, network}));
}

function release({address, network}) {
  const path = `v1/leases/${encodeURIComponent(address)}?network=${encodeURIComponent(network)}`;
  return act("release", "released", {address}, () => ask("DELETE", path));
}

/** Ask whether it is meant; do it, say so, and look. Returns whether it was done. */
async function act(verb, done, values, request) {
  if (!(await isMeant(word(`${verb}_question`, values), word(verb)))) return false;
  try {
    await request();
    say(word(done, values));
  } catch (error) {
    failed(error);
    return false;
  }
  await refresh();
  return true;
}

function isMeant(question, verb) {
  const dialog = element("ask");
  element("question").textContent = question;
  element("yes").textContent = verb;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), {once: true});
  });
}

element("reserve").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [address, device] = ["reserve-address", "reserve-device"].map((id) => element(id).value.trim());
  if (await reserve(address, device, element("reserve-network").value, device)) event.target.reset();
});

// Coming and going

function enter() {
  renewed = Date.now();
  seen = {at: 0, members: new Map()};
  for (const [id, isHidden] of [["entry", true], ["relay", false], ["log-out", false]]) element(id).hidden = isHidden;
  select(open);
}

function leave(why) {
  turn += 1;
  clearTimeout(timer);
  for (const [id, isHidden] of [["entry", false], ["relay", true], ["log-out", true]]) element(id).hidden = isHidden;
  for (const table of [members, leases, reservations, networks]) table.show([]);
  for (const id of ["which", "refreshed", "reasons"]) element(id).textContent = "";
  element("figures").replaceChildren();
  document.title = "candy";
  say(why, "error");
  element("token").focus();
}

element("log-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await logIn(element("token").value.trim());
  } catch (error) {
    if (error instanceof Refused && error.status === 401) say(word("wrong_token"), "error");
    else failed(error);
    return;
  }
  event.target.reset();
  say("");
  enter();
});

element("log-out").addEventListener("click", async () => {
  try {
    await logOut();
    leave("");
  } catch (error) {
    failed(error);
  }
});

function select(tab) {
  open = tab;
  history.replaceState(null, "", `#${tab}`);
  for (const name of Object.keys(TABS)) {
    element(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
    element(name).hidden = name !== tab;
  }
  refresh();
}

for (const name of Object.keys(TABS)) element(`tab-${name}`).addEventListener("click", () => select(name));
element("filter").addEventListener("input", ({target}) => {
  for (const {tables} of Object.values(TABS)) for (const table of tables) table.filter(target.value);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !element("relay").hidden) refresh();
});
element("language").append(...Object.entries(LANGUAGES).map(([tag, name]) => new Option(name, tag)));
element("language").value = language;
element("language").addEventListener("change", ({target}) => {
  choose(target.value);
  translate();
  say("");
  if (!element("relay").hidden) refresh();
});

translate();
try {
  await session();
  enter();
} catch (error) {
  if (error instanceof Refused && error.status === 401) leave("");
  else failed(error);
}
