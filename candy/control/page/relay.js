// Questions to the relay, by the cookie of the one who has logged in.
//
//     logIn(token) ─▶ ask("GET", "v1/status") ─▶ the answer
//                                             ─▶ Refused: its words, and its status; 401: log in
//
// Rules:
//  1. All addresses are relative. The page may be anywhere in a web server, and asks no other host.
//  2. The CSRF token is asked for where it is needed: the cookie may be another one since, by another tab.

/** The relay does not do it. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** An answer. Throws Refused, or TypeError where the relay can't be reached. */
export async function ask(method, path, body) {
  const headers = method === "GET" ? {} : {"X-CSRF-Token": (await session()).csrf};
  return answered(await fetch(path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body)}));
}

/** The session that the browser has from before, or Refused. */
export function session() {
  return ask("GET", "session");
}

/** Log in. A header takes bytes, so a token in any script is written as those of UTF-8. */
export async function logIn(token) {
  const said = String.fromCharCode(...new TextEncoder().encode(token));
  await answered(await fetch("session", {method: "POST", headers: {Authorization: `Bearer ${said}`}}));
}

/** Have a ticket that lasts from now on. */
export async function renew() {
  await ask("POST", "session");
}

export async function logOut() {
  await ask("DELETE", "session");
}

async function answered(response) {
  if (response.ok) return response.status === 204 ? null : response.json();
  // A web server in between has words of its own.
  const said = await response.json().catch(() => ({error: `${response.status} ${response.statusText}`}));
  throw new Refused(said.error, response.status);
}
