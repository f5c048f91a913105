/*
 * The headers of what a scrub says (docs/formats/replica-message.md): packed and read for replica-message.ts.
 */
import type { PackedReader, PackedValue } from "./packed-header.ts";
import type { ReplicaMessage, ScrubMessage } from "./replica-message-kinds.ts";

/** Elements of each header, its type among them. */
export const scrubElements: Readonly<Record<ScrubMessage["type"], number>> = {
  scrub: 6,
  scrubbed: 4,
  mend: 5,
  mended: 2,
};

const sumPattern = /^[0-9a-f]{16}$/;

export function isScrubType(type: string): type is ScrubMessage["type"] {
  return Object.hasOwn(scrubElements, type);
}

export function isScrubMessage(message: ReplicaMessage): message is ScrubMessage {
  return isScrubType(message.type);
}

export function scrubValues(message: ScrubMessage): PackedValue[] {
  switch (message.type) {
    case "scrub": {
      const { type, run, isRepair, bytesPerSecond, first, count } = message;
      return [type, run, Number(isRepair), bytesPerSecond, first, count];
    }
    case "scrubbed":
      return [message.type, Number(message.isDone), message.doneBytes, message.totalBytes];
    case "mend":
      return [message.type, message.extent, message.lsn, message.sum, message.peer];
    case "mended":
      break;
  }
  return [message.type, Number(message.isMended)];
}

/** Null: not what any Varve sends. */
export function scrubMessageOf(type: ScrubMessage["type"], reader: PackedReader): ScrubMessage | null {
  switch (type) {
    case "scrub": {
      const run = reader.text();
      const [isRepair, bytesPerSecond] = [reader.number() !== 0, reader.number()];
      const [first, count] = [reader.number(), reader.number()];
      return bytesPerSecond < 1 ? null : { type, run, isRepair, bytesPerSecond, first, count };
    }
    case "scrubbed":
      return {
        type,
        isDone: reader.number() !== 0,
        doneBytes: reader.number(),
        totalBytes: reader.number(),
      };
    case "mend": {
      const [extent, lsn, sum, peer] = [reader.number(), reader.number(), reader.text(), reader.text()];
      return sumPattern.test(sum) ? { type, extent, lsn, sum, peer } : null;
    }
    case "mended":
      break;
  }
  return { type, isMended: reader.number() !== 0 };
}
