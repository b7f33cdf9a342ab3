// Everything that is asked, but for pictures, in the part of the address behind the #.

const FIELDS = ["prompt", "instruction", "question", "text", "feature", "guide"];
const NUMBERS = [
  "candidates", "seed", "guidance_scale", "image_guidance_scale", "temperature", "top_p", "top_k",
  "cd_k", "cd_alpha", "retrieve",
];

/**
 * Write what is asked as the end of an address.
 * @param {import("./tasks.js").Asked} asked
 * @returns {string} Without the #.
 */
export function writeLink({ task, fields, settings, documents }) {
  const words = new URLSearchParams({ task });
  for (const name of FIELDS) if (fields[name]) words.set(name, fields[name]);
  if (fields.boxes) {
    words.set("boxes", JSON.stringify(fields.boxes.map(({ name, box }) => [name, ...box])));
  }
  for (const [name, value] of Object.entries(settings)) words.set(name, value);
  if (documents) words.set("documents", documents.join(","));
  return words.toString();
}

/**
 * Read what `writeLink` wrote, or what someone made of it: what makes no sense is left out.
 * @param {string} text With or without the #.
 * @returns {import("./tasks.js").Asked|null} None where there is no task.
 */
export function readLink(text) {
  const words = new URLSearchParams(text.replace(/^#/, ""));
  const task = words.get("task");
  if (!task) return null;
  const fields = {};
  for (const name of FIELDS) if (words.has(name)) fields[name] = words.get(name);
  if (words.has("boxes")) fields.boxes = boxesOf(words.get("boxes"));
  const settings = {};
  for (const name of NUMBERS) {
    const value = words.get(name);
    if (value && Number.isFinite(Number(value))) settings[name] = Number(value);
  }
  if (words.get("sampler")) settings.sampler = words.get("sampler");
  const keys = words.get("documents");
  const documents = keys === null ? null : keys.split(",").filter((key) => /^\d{1,20}$/.test(key));
  return { task, fields, settings, documents, picture: null, mask: null };
}

function boxesOf(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    return [];
  }
  if (!Array.isArray(found)) return [];
  const whole = (one) => Array.isArray(one) && one.length === 5;
  const boxes = found.filter(whole).map(([name, ...box]) => ({ name: String(name), box }));
  return boxes.filter(({ box }) => box.every(Number.isFinite));
}
