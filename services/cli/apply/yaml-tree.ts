/*
 * YAML as lab-reader.ts takes it: maps, lists and single values, each with the line that it stands on, and every mistake of the text
 * itself. The rest of YAML (aliases, tags of its own, several documents) is refused. Why a library: docs/adr/001-toolchain.md.
 */
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from "yaml";
import type { LabMistake } from "#shared/domain/lab-file.ts";

export interface TreeEntry {
  readonly key: string;
  readonly line: number;
  readonly value: Tree;
}

export type Tree =
  | { readonly kind: "map"; readonly line: number; readonly entries: readonly TreeEntry[] }
  | { readonly kind: "list"; readonly line: number; readonly items: readonly Tree[] }
  /** `text` as it was written, `value` as YAML understands it; null: nothing stands there. */
  | { readonly kind: "value"; readonly line: number; readonly text: string; readonly value: unknown };

const depthMax = 16;

export function readYaml(text: string): { readonly tree: Tree; readonly mistakes: readonly LabMistake[] } {
  const lines = new LineCounter();
  const document: Document = parseDocument(text, { lineCounter: lines, version: "1.2", uniqueKeys: true });
  const mistakes: LabMistake[] = [...document.errors, ...document.warnings].map(({ message, linePos }) => ({
    line: linePos?.[0].line ?? 1,
    text: (message.split("\n")[0] ?? "").replace(/ at line \d+, column \d+:?$/, ""),
  }));
  const lineOf = (node: unknown, otherwise: number): number => {
    const range = (node as { readonly range?: readonly number[] | null } | null)?.range;
    return range === null || range === undefined ? otherwise : lines.linePos(range[0] ?? 0).line;
  };
  const treeOf = (node: unknown, above: number, depth: number): Tree => {
    const line = lineOf(node, above);
    if (isMap(node) && depth < depthMax) {
      const entries = node.items.map(({ key, value }) => {
        const at = lineOf(key, line);
        if (!isScalar(key)) mistakes.push({ line: at, text: "a key that is no single word" });
        const name = isScalar(key) ? (key.source ?? String(key.value)) : "";
        return { key: name, line: at, value: treeOf(value, at, depth + 1) };
      });
      return { kind: "map", line, entries };
    }
    if (isSeq(node) && depth < depthMax) {
      return { kind: "list", line, items: node.items.map((item) => treeOf(item, line, depth + 1)) };
    }
    if (isScalar(node)) return { kind: "value", line, text: node.source ?? "", value: node.value };
    if (isAlias(node)) mistakes.push({ line, text: "aliases are not read: write it out" });
    else if (node !== null && node !== undefined) mistakes.push({ line, text: "this lies too deep" });
    return { kind: "value", line, text: "", value: null };
  };
  return { tree: treeOf(document.contents, 1, 0), mistakes };
}
