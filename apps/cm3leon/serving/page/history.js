// What was made earlier, in this browser's own database; without one, as long as the page is open.

const NAME = "cm3leon";
const STORE = "earlier";
const MOST = 60;
const MOST_LETTERS = 40e6;

/**
 * @typedef {object} Entry
 * @property {number} [id]
 * @property {string} run The run's name.
 * @property {number} when Milliseconds since 1970.
 * @property {import("./tasks.js").Asked} asked
 * @property {any} result Pictures or texts.
 * @property {any[]} documents
 */

/** Results of one run, the latest first; the oldest make room. */
export class History {
  #run;
  #database;
  #memory = [];

  /** @param {string} run Its name. */
  constructor(run) {
    this.#run = run;
    this.#database = open().catch(() => null);
  }

  /** @returns {Promise<Entry[]>} The latest first. */
  async all() {
    const entries = (await this.#do("readonly", (store) => store.getAll())) ?? this.#memory;
    return entries.filter((entry) => entry.run === this.#run).sort((a, b) => b.when - a.when);
  }

  /**
   * Keep an entry; the oldest make room for it.
   * @param {Omit<Entry, "run">} entry
   */
  async add(entry) {
    const kept = { run: this.#run, ...entry };
    if ((await this.#do("readwrite", (store) => store.put(kept))) === null) {
      this.#memory.push({ id: kept.when, ...kept });
    }
    let letters = 0;
    for (const [place, one] of (await this.all()).entries()) {
      letters += JSON.stringify(one).length;
      if (place && (place >= MOST || letters > MOST_LETTERS)) await this.remove(one.id);
    }
  }

  /** @param {number} id */
  async remove(id) {
    this.#memory = this.#memory.filter((one) => one.id !== id);
    await this.#do("readwrite", (store) => store.delete(id));
  }

  /** Take everything of this run away. */
  async clear() {
    for (const { id } of await this.all()) await this.remove(id);
  }

  // Null where the browser keeps nothing: a private window, or a full disk.
  async #do(mode, work) {
    const database = await this.#database;
    if (!database) return null;
    return new Promise((resolve, reject) => {
      const request = work(database.transaction(STORE, mode).objectStore(STORE));
      request.onsuccess = () => resolve(request.result ?? true);
      request.onerror = () => reject(request.error);
    }).catch(() => null);
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
