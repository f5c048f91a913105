/*
 * Metadata contexts that an export offers, and what a LIST or SET query matches. Used by nbd-negotiation.ts; the chosen ones
 * are answered by nbd-transmission.ts. Later kinds (changed ranges, dirty bitmaps) join this table.
 */

export const contextKind = { allocation: 1, residency: 2 } as const;

/** A context of this server; `id` stands in block status chunks. */
export interface MetaContextChoice {
  readonly id: (typeof contextKind)[keyof typeof contextKind];
  readonly name: string;
}

/** Descriptor flags of varve:residency: every byte is on this machine. */
export const residencyLocal = 0;

const offered: readonly MetaContextChoice[] = [
  { id: contextKind.allocation, name: "base:allocation" },
  { id: contextKind.residency, name: "varve:residency" },
];

/** LIST: all of them without a query; `namespace:` alone means all of that namespace. */
export function listContexts(queries: readonly string[]): readonly MetaContextChoice[] {
  if (queries.length === 0) return offered;
  return offered.filter((context) =>
    queries.some(
      (query) => query === context.name || (query.endsWith(":") && context.name.startsWith(query)),
    ),
  );
}

/** SET: exact names only, each once; unknown ones are ignored. */
export function chooseContexts(queries: readonly string[]): readonly MetaContextChoice[] {
  return offered.filter((context) => queries.includes(context.name));
}
