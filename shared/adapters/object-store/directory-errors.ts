/*
 * What a failed system call on the bucket's directory means to the caller, and what to do about it. Called by directory.ts.
 */
import { type ErrorKind, ObjectStoreError } from "#shared/domain/errors.ts";

export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}

const meanings: Readonly<Record<string, { readonly kind: ErrorKind; readonly hint: string }>> = {
  ENOSPC: { kind: "Full", hint: "Make room on the bucket's disk, or shorten the history window." },
  EDQUOT: { kind: "Full", hint: "The bucket's quota is used up: raise it, or shorten the history window." },
  EFBIG: { kind: "Full", hint: "The bucket's file system does not take files of this size." },
  EACCES: { kind: "Invalid", hint: "Give Varve's user the right to read and write the bucket's directory." },
  EPERM: { kind: "Invalid", hint: "The bucket's file system refuses this; hard links are needed too." },
  EROFS: { kind: "Invalid", hint: "The bucket's file system is mounted read-only." },
  ENOTDIR: { kind: "Invalid", hint: "A file stands where the bucket needs a directory." },
  EEXIST: { kind: "Invalid", hint: "A file stands where the bucket needs a directory." },
  EISDIR: { kind: "Invalid", hint: "A directory stands where the bucket has an object." },
  ENOTEMPTY: { kind: "Invalid", hint: "A directory stands where the bucket has an object." },
  ENOENT: { kind: "Retry", hint: "The bucket's directory is away: is its disk mounted?" },
  // A put that failed is written again as a whole, from memory.
  EIO: {
    kind: "Retry",
    hint: "The bucket's disk or network file system failed: the kernel's log (dmesg) says more.",
  },
  ESTALE: { kind: "Retry", hint: "The bucket's network file system is away." },
  ENOTCONN: { kind: "Retry", hint: "The bucket's file system is away." },
  ETIMEDOUT: { kind: "Retry", hint: "The bucket's file system does not answer." },
  EHOSTDOWN: { kind: "Retry", hint: "The bucket's file system does not answer." },
  EAGAIN: { kind: "Retry", hint: "" },
  EBUSY: { kind: "Retry", hint: "" },
  EMFILE: { kind: "Retry", hint: "Raise the limit of open files (ulimit -n)." },
  ENFILE: { kind: "Retry", hint: "Raise the limit of open files (fs.file-max)." },
};

/** `missing`: ENOENT says that the directory was never there, which waiting does not mend. */
export function directoryError(
  operation: string,
  place: string,
  key: string,
  error: unknown,
  absence: "away" | "missing" = "away",
): ObjectStoreError {
  if (error instanceof ObjectStoreError) return error;
  const code = codeOf(error);
  if (code === "ENOENT" && absence === "missing") {
    const hint = "Is its disk mounted? Else make the directory, or correct the bucket's URL.";
    return new ObjectStoreError({ kind: "Invalid", operation, place, key }, "no such directory", { hint });
  }
  const meaning = meanings[code] ?? { kind: "Internal" as const, hint: "" };
  const what = code === "" ? String(error) : code;
  return new ObjectStoreError({ kind: meaning.kind, operation, place, key }, what, {
    hint: meaning.hint,
    cause: error,
  });
}
