// Reads the worked example of a format page, so that page and codec can't drift apart: the fenced hex dump (offset, then
// up to 16 bytes a line, a star for repetitions of the line above, the last offset is the length) or fenced text.
// Callers: the golden tests beside it. No format page, no golden test.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

function fenced(page: string, language: string): string {
  const text = readFileSync(fileURLToPath(new URL(`../../docs/formats/${page}`, import.meta.url)), "utf8");
  const found = [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, "gm"))];
  if (found.length !== 1) throw new Error(`${page} has ${found.length} examples in ${language}, not one`);
  return found[0]?.[1] ?? "";
}

/** The bytes of the page's only hex dump, or of the only one that is fenced with another word. */
export function hexExample(page: string, fence = "hex"): Buffer {
  const lines = fenced(page, fence).trimEnd().split("\n");
  const bytes: number[] = [];
  let repeated = false;
  for (const line of lines) {
    if (line === "*") {
      repeated = true;
      continue;
    }
    const [offsetText = "", ...pairs] = line.split(/\s+/);
    const offset = Number.parseInt(offsetText, 16);
    const above = bytes.slice(-16);
    if (repeated) while (bytes.length < offset) bytes.push(...above);
    repeated = false;
    if (bytes.length !== offset) throw new Error(`${page}: line ${offsetText} stands at ${bytes.length}`);
    for (const pair of pairs) bytes.push(Number.parseInt(pair, 16));
  }
  if (!/^[0-9a-f]{8}$/.test(lines.at(-1) ?? ""))
    throw new Error(`${page}: the dump does not end with its length`);
  return Buffer.from(bytes);
}

/** The page's only fenced JSON text, or the only one that is fenced with another word. */
export function textExample(page: string, fence = "json"): Buffer {
  return Buffer.from(fenced(page, fence));
}

/** Offsets of bits whose flip `accepts` still takes; [] for a format that finds every one. */
export function undetectedFlips(bytes: Buffer, accepts: (changed: Buffer) => boolean): number[] {
  const changed = Buffer.from(bytes);
  const missed: number[] = [];
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const at = bit >> 3;
    const before = changed[at] as number;
    changed[at] = before ^ (1 << (bit & 7));
    if (accepts(changed)) missed.push(bit);
    changed[at] = before;
  }
  return missed;
}

/** Lengths at which a cut-off `accepts` still takes the rest. */
export function undetectedCuts(bytes: Buffer, accepts: (changed: Buffer) => boolean): number[] {
  return Array.from({ length: bytes.length }, (_, length) => length).filter((length) =>
    accepts(bytes.subarray(0, length)),
  );
}
