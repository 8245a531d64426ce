// Figures as people read them, in the language of the page.

import {language, word} from "./words.js";

const PREFIXES = ["", "k", "M", "G", "T", "P"];

/** Bytes, of which 1000 are a kB: three digits. */
export function bytes(count) {
  return `${scaled(count)}B`;
}

/** Bits a second. */
export function bits(perSecond) {
  return `${scaled(perSecond)}bit/s`;
}

function scaled(count) {
  let prefix = 0;
  while (count >= 999.5 && prefix < PREFIXES.length - 1) {
    count /= 1000;
    prefix += 1;
  }
  const digits = prefix === 0 || count >= 99.5 ? Math.round(count) : count.toPrecision(count >= 9.95 ? 3 : 2);
  return `${digits} ${PREFIXES[prefix]}`;
}

/** Bytes a second. */
export function rate(perSecond) {
  return `${bytes(perSecond)}/s`;
}

/** A count, or some a second. */
export function count(number) {
  const digits = number > 0 && number < 10 && !Number.isInteger(number) ? 1 : 0;
  return number.toFixed(digits).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
}

/** Milliseconds. */
export function delay(ms) {
  return ms === 0 ? "" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** How long something has lasted: the two largest units. */
export function lasting(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [86400, 3600, 60].map((unit) => Math.floor(whole / unit));
  if (days) return `${days} ${word("day")} ${hours % 24} ${word("hour")}`;
  if (hours) return `${hours} ${word("hour")} ${minutes % 60} ${word("minute")}`;
  return minutes ? `${minutes} ${word("minute")}` : `${whole} ${word("second")}`;
}

/** A time, Unix seconds. */
export function time(seconds) {
  return format({dateStyle: "short", timeStyle: "short"}).format(seconds * 1000);
}

/** A time of today. */
export function clock(seconds) {
  return format({timeStyle: "medium"}).format(seconds * 1000);
}

// To make one takes as long as to use it a hundred times.
const formats = new Map();

function format(options) {
  const key = `${language} ${Object.keys(options)}`;
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(language, options));
  return formats.get(key);
}
