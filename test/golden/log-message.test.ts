// The message of docs/formats/log-message.md, byte for byte in both directions; every flipped bit and every cut is found.
import { describe, expect, test } from "vitest";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import { MessageReader, messageBytesBound, packRecord } from "#shared/formats/log-message.ts";
import { frameRecord, readRecord } from "#shared/formats/log-record.ts";
import { hexExample, undetectedCuts, undetectedFlips } from "./worked-example.ts";

const frame = {
  line: "0f1e2d3c4b5a6978",
  epoch: 3,
  wallTimeMs: 1_763_688_000_000,
  durableLsn: 41,
  previousChecksum: 0x1122334455667788n,
};

function framedDrafts() {
  const first = new BatchDraft({ bytes: Buffer.alloc(8192, 0xee), address: 0 });
  first.addValue(entryKind.epoch, "attic pid 4711");
  first.slab.bytes.write("varve", first.addWrite(2 ** 33, 5), "latin1");
  first.addRange(entryKind.trim, 1_048_576, 65_536);
  first.firstLsn = 42;
  frameRecord(first, frame);
  const second = new BatchDraft({ bytes: Buffer.alloc(8192, 0xee), address: 0 });
  second.addValue(entryKind.mark, "good");
  second.firstLsn = 45;
  frameRecord(second, { ...frame, previousChecksum: first.checksum });
  return [first, second];
}

describe("log message", () => {
  const bytes = hexExample("log-message.md");
  /** Whether the bytes are a message of two whole records. */
  const accepts = (changed: Buffer): boolean => {
    const found = [...new MessageReader().read(changed)];
    return found.length === 2 && found.every((item) => "record" in item);
  };

  test("the page's bytes are written", () => {
    const into = Buffer.alloc(1024, 0xdd);
    let end = 0;
    let bound = 0;
    for (const draft of framedDrafts()) {
      end = packRecord(draft, into, end);
      bound += messageBytesBound(draft);
    }
    expect(into.subarray(0, end).toString("hex")).toBe(bytes.toString("hex"));
    expect(end).toBeLessThanOrEqual(bound);
  });

  test("the page's bytes are read: the very records that log files hold, over whatever stood in memory", () => {
    const reader = new MessageReader();
    const large = new BatchDraft({ bytes: Buffer.alloc(16384, 0xaa), address: 0 });
    large.addWrite(0, 12288);
    large.firstLsn = 1;
    frameRecord(large, { ...frame, durableLsn: 0, previousChecksum: 0n });
    const message = Buffer.alloc(16384);
    const end = packRecord(large, message, 0);
    for (const item of reader.read(message.subarray(0, end))) expect("record" in item).toBe(true);

    const drafts = framedDrafts();
    let index = 0;
    for (const item of reader.read(bytes)) {
      if (!("record" in item)) throw new Error(item.detail);
      const draft = drafts[index];
      expect(item.record.equals(draft?.slab.bytes.subarray(0, draft.recordBytes) ?? Buffer.alloc(0))).toBe(
        true,
      );
      expect(item.batch).toEqual(readRecord(item.record));
      index += 1;
    }
    expect(index).toBe(2);
  });

  test("a payload of whole blocks stays where the message is; its record is the log file's, and a changed byte is found", () => {
    const draft = new BatchDraft({ bytes: Buffer.alloc(16384, 0xaa), address: 0 });
    draft.addWrite(0, 8192);
    draft.firstLsn = 1;
    frameRecord(draft, { ...frame, durableLsn: 0, previousChecksum: 0n });
    const memory = Buffer.alloc(16384);
    const message = memory.subarray(0, packRecord(draft, memory, 0));
    const [item] = new MessageReader().read(message);
    if (item === undefined || "fault" in item) throw new Error("no record");
    expect(item.batch.payload.buffer).toBe(memory.buffer);
    expect(item.record.equals(draft.slab.bytes.subarray(0, draft.recordBytes))).toBe(true);
    for (const at of [message.length - 8192, message.length - 1]) {
      const changed = Buffer.from(message);
      changed[at] = 0xab;
      expect([...new MessageReader().read(changed)]).toMatchObject([{ fault: "payloadChecksum" }]);
    }
  });

  test("every flipped bit is found", () => {
    expect(undetectedFlips(bytes, accepts)).toEqual([]);
  });

  test("every cut is found", () => {
    expect(undetectedCuts(bytes, accepts)).toEqual([]);
  });

  test("bytes behind the last record are found, and the records before them still read", () => {
    const found = [
      ...new MessageReader().read(
        Buffer.concat([bytes, Buffer.from("more than thirty-two bytes of something")]),
      ),
    ];
    expect(found.map((item) => "record" in item)).toEqual([true, true, false]);
  });

  test("no length is believed before it was checked", () => {
    const changed = Buffer.from(bytes);
    changed.writeUInt32LE(0xffff_ffff, 28);
    expect([...new MessageReader().read(changed)]).toMatchObject([{ fault: "lengths" }]);
    changed.writeUInt32LE(limits.batchPayloadBytesMax, 28);
    expect([...new MessageReader().read(changed)]).toMatchObject([{ fault: "truncated" }]);
    expect([...new MessageReader().read(Buffer.alloc(0))]).toMatchObject([{ fault: "truncated" }]);
  });
});
