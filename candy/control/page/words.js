// What the page says, in each of its languages.
//
//     word("kick_question", {name: "laptop"}) ─▶ a text of the language that was chosen
//
// Rule: both languages have the same words; what a relay answers, and what its members call themselves, stays as it is.

export const LANGUAGES = {en: "English", zh: "中文"};

const WORDS = {
  en: {
    address: "Address",
    addresses_free: "Free",
    addresses_used: "Used",
    cancel: "Cancel",
    configured: "Set by",
    connected: "Connected",
    connections: "Connections",
    day: "d",
    delay: "Delay",
    device: "Name, key:… or vmac:…",
    drops: "Drops",
    filter: "Filter",
    first_seen: "First seen",
    forbidden: "The session has ended: log in again.",
    gone: "The relay does not answer: trying again.",
    hour: "h",
    in: "In",
    in_configuration: "configuration",
    in_total: "In, total",
    interface: "Interface",
    kick: "Kick",
    kick_question: "End the connection of {name}? It may come back.",
    kicked: "{name} was kicked.",
    language: "Language",
    last_seen: "Last seen",
    leases: "Leases",
    limits: "Limits",
    log_in: "Log in",
    log_out: "Log out",
    members: "Members",
    minute: "min",
    name: "Name",
    network: "Network",
    networks: "Networks",
    next: "Next rows",
    no: "no",
    nothing: "Nothing to show.",
    now: "now",
    out: "Out",
    out_total: "Out, total",
    pool: "Pool",
    previous: "Previous rows",
    program: "Program",
    quota_left: "{bytes} left",
    refreshed: "{time}, in {ms} ms",
    release: "Release",
    release_question: "End the reservation of {address}, and its lease unless the device is connected?",
    released: "{address} was released.",
    reservations: "Reservations",
    reserve: "Reserve",
    reserve_question: "Keep {address} for {name}?",
    reserved: "{address} is reserved.",
    rules: "Rules",
    second: "s",
    since: "Online",
    source: "Source",
    throughput: "Throughput",
    token: "Token",
    token_hint: "One of those in the file of --control-token-file.",
    up: "Up",
    waiting: "Waiting",
    with_command: "command",
    wrong_token: "This is no token of the relay's.",
    yes: "yes",
  },
  zh: {
    address: "地址",
    addresses_free: "空闲",
    addresses_used: "已用",
    cancel: "取消",
    configured: "来源",
    connected: "已连接",
    connections: "连接数",
    day: "天",
    delay: "延迟",
    device: "名称、key:… 或 vmac:…",
    drops: "丢包",
    filter: "筛选",
    first_seen: "首次出现",
    forbidden: "会话已结束，请重新登录。",
    gone: "中继没有应答，正在重试。",
    hour: "小时",
    in: "流入",
    in_configuration: "配置文件",
    in_total: "流入总量",
    interface: "网络接口",
    kick: "断开",
    kick_question: "断开 {name} 的连接吗？它可以重新连接。",
    kicked: "已断开 {name}。",
    language: "语言",
    last_seen: "最近出现",
    leases: "地址租约",
    limits: "限速",
    log_in: "登录",
    log_out: "退出",
    members: "成员",
    minute: "分钟",
    name: "名称",
    network: "网络",
    networks: "网络",
    next: "后面的行",
    no: "否",
    nothing: "没有内容。",
    now: "现在",
    out: "流出",
    out_total: "流出总量",
    pool: "地址池",
    previous: "前面的行",
    program: "程序",
    quota_left: "剩余 {bytes}",
    refreshed: "{time}，用时 {ms} 毫秒",
    release: "释放",
    release_question: "取消 {address} 的保留吗？设备未连接时，租约也一并结束。",
    released: "已释放 {address}。",
    reservations: "保留地址",
    reserve: "保留",
    reserve_question: "把 {address} 保留给 {name} 吗？",
    reserved: "已保留 {address}。",
    rules: "规则",
    second: "秒",
    since: "在线时长",
    source: "来源地址",
    throughput: "吞吐量",
    token: "令牌",
    token_hint: "--control-token-file 所指文件中的任意一个令牌。",
    up: "已运行",
    waiting: "排队数据",
    with_command: "命令",
    wrong_token: "中继没有这个令牌。",
    yes: "是",
  },
};

const KEPT = "candy-language";

export let language = localStorage.getItem(KEPT) ?? preferred();
if (!(language in WORDS)) language = "en";

function preferred() {
  const known = navigator.languages.map((tag) => tag.split("-")[0]).find((tag) => tag in WORDS);
  return known ?? "en";
}

/** Speak another language, on this browser's later visits as well. */
export function choose(tag) {
  language = tag;
  localStorage.setItem(KEPT, tag);
}

/** A word, with values in place of {names}. */
export function word(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Put the words into all elements that name one. */
export function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", word(element.dataset.label));
    element.setAttribute("placeholder", word(element.dataset.label));
  }
  for (const element of document.querySelectorAll("[data-title]")) element.title = word(element.dataset.title);
}
