// A FileStore whose writes, syncs and directory syncs pass through the test's hands: seen, held back, failed or let through.
// Everything else goes straight to the store behind it. Used by recovery.test.ts, writer.test.ts and room.test.ts.
// The hook calls proceed() for the real thing, or gives another answer in its place.
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { SlabPiece } from "#shared/ports/slab.ts";

export type InterceptedMethod =
  | "write"
  | "writeDurable"
  | "writeInline"
  | "writeDurableInline"
  | "sync"
  | "allocate"
  | "syncDirectory";

export interface InterceptedCall {
  readonly method: InterceptedMethod;
  readonly path: string;
  readonly offset: number;
  readonly bytes: number;
  /** The first 64 bytes of a write. */
  readonly content: Buffer | null;
}

export type Hook = (call: InterceptedCall, proceed: () => Promise<void>) => Promise<void>;

const inlineMethods: ReadonlySet<string> = new Set(["writeInline", "writeDurableInline"]);
const writeMethods: ReadonlySet<string> = new Set(["write", "writeDurable", ...inlineMethods]);

export function intercept(store: FileStore, hook: Hook): FileStore {
  return replaceMember(store, (name, original) => {
    if (name === "syncDirectory") {
      return (path: string) => {
        const call: InterceptedCall = { method: "syncDirectory", path, offset: 0, bytes: 0, content: null };
        return hook(call, () => original(path) as Promise<void>);
      };
    }
    if (name !== "open") return original;
    return async (...args: Parameters<FileStore["open"]>) => interceptFile(await store.open(...args), hook);
  });
}

function interceptFile(file: BlockFile, hook: Hook): BlockFile {
  return replaceMember(file, (name, original) => {
    if (name === "sync") {
      const call: InterceptedCall = { method: "sync", path: file.path, offset: 0, bytes: 0, content: null };
      return () => hook(call, () => original() as Promise<void>);
    }
    if (name === "allocate") {
      return (offset: number, length: number) => {
        const call: InterceptedCall = {
          method: "allocate",
          path: file.path,
          offset,
          bytes: length,
          content: null,
        };
        return hook(call, () => original(offset, length) as Promise<void>);
      };
    }
    if (!writeMethods.has(name)) return original;
    return (pieces: readonly SlabPiece[], offset: number) => {
      const first = pieces[0];
      const content =
        first === undefined ? null : Buffer.from(first.slab.bytes.subarray(first.start, first.start + 64));
      const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
      const call: InterceptedCall = {
        method: name as InterceptedMethod,
        path: file.path,
        offset,
        bytes,
        content,
      };
      if (!inlineMethods.has(name)) return hook(call, () => original(pieces, offset) as Promise<void>);
      // An inline call can only be seen: its answer is needed at once.
      void hook(call, () => Promise.resolve());
      return original(pieces, offset);
    };
  });
}

function replaceMember<T extends object>(
  target: T,
  replace: (name: string, original: (...args: unknown[]) => unknown) => unknown,
): T {
  return new Proxy(target, {
    get(inner, name) {
      const value: unknown = Reflect.get(inner, name);
      if (typeof value !== "function") return value;
      return replace(String(name), value.bind(inner) as (...args: unknown[]) => unknown);
    },
  });
}
