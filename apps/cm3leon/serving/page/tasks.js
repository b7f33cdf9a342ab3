// What can be asked of a run: what each request needs, and how it is sent.

const SAMPLING = ["sampler", "guidance_scale", "temperature", "top_p", "top_k", "cd_k", "cd_alpha"];
const DRAWING = ["candidates", "seed", ...SAMPLING];
// Captions and parts of a picture are drawn without guidance and contrast.
const PLAIN = ["candidates", "seed", "temperature", "top_p", "top_k", "retrieve"];

/**
 * @typedef {object} Asked What is asked of the run; what a link and the history keep.
 * @property {string} task
 * @property {Record<string, any>} fields Of the tab: prompt, instruction, boxes, ...
 * @property {Record<string, any>} settings Those that differ from the run's own, and the seed.
 * @property {string[]|null} documents Keys of those that shall stand before the prompt.
 * @property {string|null} picture A data: URL.
 * @property {string|null} mask A data: URL.
 */

/** The tabs: the button's words, whether a picture is needed, the words that must not be empty. */
export const TASKS = {
  draw: {
    verb: "Draw", settings: [...DRAWING, "retrieve"],
    needs: { prompt: "Say what to draw." },
  },
  teach: { verb: "", picture: true, settings: [], needs: {} },
  describe: { verb: "Describe", picture: true, settings: PLAIN, needs: {} },
  vary: { verb: "Vary", picture: true, settings: DRAWING, needs: {} },
  infill: {
    verb: "Redraw", picture: true, settings: PLAIN,
    needs: { prompt: "Say what the whole picture shall show." },
  },
  edit: {
    verb: "Edit", picture: true, settings: [...DRAWING, "image_guidance_scale"],
    needs: { instruction: "Say what to change." },
  },
  structure: {
    verb: "Draw", picture: true, settings: DRAWING,
    needs: { prompt: "Say what to draw." },
  },
  boxes: { verb: "Draw", settings: DRAWING, needs: {} },
  write: { verb: "Write", settings: DRAWING, needs: { text: "Say what to write." } },
};

/**
 * The request that asks for it.
 * @param {Asked} asked
 * @returns {{name: string, body: any}}
 */
export function requestOf({ task, fields, settings, documents, picture, mask }) {
  const body = { ...settings };
  for (const [name, value] of Object.entries(fields)) if (value !== "") body[name] = value;
  if (picture) body.picture = picture;
  if (task === "describe" && fields.question) {
    return { name: "ask", body: { picture, question: fields.question } };
  }
  if (task === "infill") body.mask = mask;
  if (task === "draw" && documents) body.documents = documents;
  if (task === "structure") {
    body.is_feature = fields.guide !== "picture";
    delete body.guide;
  }
  return { name: task, body };
}

/**
 * What it is called.
 * @param {Asked} asked
 * @returns {string}
 */
export function titleOf({ task, fields }) {
  if (task === "describe") return fields.question || "Captions";
  if (task === "edit") return fields.instruction;
  if (task === "write") return fields.text;
  if (task === "boxes" && !fields.prompt) return fields.boxes.map((one) => one.name).join(", ");
  return fields.prompt || "More of the same thing";
}

/**
 * Whether texts answer it, not pictures.
 * @param {Asked} asked
 * @returns {boolean}
 */
export function readsPicture({ task }) {
  return task === "describe";
}
