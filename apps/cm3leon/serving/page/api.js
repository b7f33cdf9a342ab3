// The service's HTTP interface. Addresses are relative to the page's: a proxy may put it anywhere.

import { readEvents } from "./events.js";
import { askForToken, token } from "./token.js";

const TRIES = 5;
const LONGEST_WAIT = 60;
const USUAL_LIMITS = { boxes: 16, documents: 8 };

/** What the service, or the way to it, says against a request. */
export class Refused extends Error {
  /**
   * @param {string} message For the user.
   * @param {{status?: number, param?: string|null}} [more] Status 0: there was no answer.
   */
  constructor(message, { status = 0, param = null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

/**
 * Ask what the run is and can do, its limits filled up.
 * @returns {Promise<any>}
 */
export async function aboutRun() {
  const run = await (await send("GET", "api/run")).json();
  run.limits = { ...USUAL_LIMITS, ...run.limits };
  if (!run.memory) run.limits.documents = 0;
  return run;
}

/**
 * Look up the documents nearest to a prompt.
 * @param {string} prompt
 * @param {number} count
 * @returns {Promise<any[]>} The best first.
 */
export async function findDocuments(prompt, count) {
  const answer = await send("POST", "api/documents", { body: { prompt, count } });
  return (await answer.json()).documents;
}

/**
 * List what was taught in this visit.
 * @returns {Promise<any[]>}
 */
export async function taughtOnes() {
  return (await (await send("GET", "api/taught")).json()).taught;
}

/**
 * Put a picture into the memory of this visit.
 * @param {string} picture
 * @param {string} name
 * @returns {Promise<any>} Its document.
 */
export async function teach(picture, name) {
  return (await send("POST", "api/taught", { body: { picture, name } })).json();
}

/**
 * Take a picture out of the memory of this visit.
 * @param {string} key
 */
export async function forget(key) {
  await send("DELETE", `api/taught/${encodeURIComponent(key)}`);
}

/**
 * Ask for pictures or texts, and give the events as they come; the last one is the result.
 * @param {string} name Of the request, such as "draw".
 * @param {any} body
 * @param {object} options
 * @param {AbortSignal} options.signal
 * @param {(seconds: number, attempt: number, of: number) => void} options.busy Called each second
 *   of a wait before it is tried again.
 * @yields {{name: string, data: any}}
 */
export async function* askFor(name, body, { signal, busy }) {
  const accept = "text/event-stream";
  const answer = await send("POST", `api/${name}`, { body, signal, busy, accept });
  let last = null;
  try {
    for await (const event of readEvents(answer.body)) {
      if (event.name === "error") throw refusal(event.data.error, 0);
      last = event.name;
      yield event;
    }
  } catch (problem) {
    if (problem instanceof Refused || signal.aborted) throw problem;
    throw new Refused("The connection broke off before it was finished.");
  }
  if (last !== "pictures" && last !== "texts") {
    throw new Refused("The service stopped before it was finished.");
  }
}

async function send(method, path, { body, signal, busy, accept = "application/json" } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await once(method, path, body, accept, signal);
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({}));
    if (answer.status === 401) {
      const said = token() ? "That token was not accepted." : "";
      if (await askForToken(said)) continue;
    } else if (answer.status === 429 && busy && attempt <= TRIES) {
      await countDown(waitOf(answer), signal, (seconds) => busy(seconds, attempt, TRIES));
      continue;
    }
    throw refusal(error, answer.status);
  }
}

async function once(method, path, body, accept, signal) {
  const headers = { Accept: accept };
  if (body) headers["Content-Type"] = "application/json";
  if (token()) headers.Authorization = `Bearer ${token()}`;
  try {
    return await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (problem) {
    if (signal?.aborted) throw problem;
    throw new Refused("The service cannot be reached.");
  }
}

function refusal(error, status) {
  const said = `The service answered with status ${status}.`;
  const { message = said, param = null, code } = error ?? {};
  const ended = code === "stopped" ? "The service is closing or has stopped: " : "";
  return new Refused(ended + message, { status, param });
}

function waitOf(answer) {
  const seconds = Math.ceil(Number(answer.headers.get("Retry-After")));
  return Math.min(Math.max(seconds || 1, 1), LONGEST_WAIT);
}

async function countDown(seconds, signal, told) {
  for (let left = seconds; left > 0; left -= 1) {
    told(left);
    await new Promise((resolve, reject) => {
      const stop = () => {
        clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", stop);
        resolve();
      }, 1000);
      signal?.addEventListener("abort", stop, { once: true });
    });
  }
}
