// The contract of the MessageBus port: one suite for every adapter (shared/ports/message-bus.ts is its text). Called by
// message-bus.test.ts on memory and by test/nats/message-bus.test.ts on a real server. `other` is another process on the same bus.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { MessageBus } from "#shared/ports/message-bus.ts";

export interface BusSubject {
  readonly bus: MessageBus;
  readonly other: MessageBus;
  /** Resolves when what was subscribed before is in force. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

const bytes = (text: string): Uint8Array => Buffer.from(text);
const text = (data: Uint8Array): string => Buffer.from(data).toString();
const failure = async (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => "no error",
    (cause: { _tag?: string; kind?: string }) => [cause._tag, cause.kind],
  );

export function messageBusContract(what: string, make: () => Promise<BusSubject>): void {
  describe(`MessageBus: ${what}`, () => {
    let subject: BusSubject;
    beforeEach(async () => {
      subject = await make();
    });
    afterEach(async () => subject.close());

    test("a request gets its answer, up to 512 KiB", async () => {
      subject.other.serve("t.echo", async (data) => data);
      await subject.settled();
      expect(text(await subject.bus.request("t.echo", bytes("hello"), 1000))).toBe("hello");
      subject.other.serve("t.at-once", (data) => data);
      await subject.settled();
      const asked = ["a", "b", "c"].map(async (one) => subject.bus.request("t.at-once", bytes(one), 1000));
      expect((await Promise.all(asked)).map(text)).toEqual(["a", "b", "c"]);
      const large = Buffer.alloc(520 * 1024, 7);
      expect(large.equals(await subject.bus.request("t.echo", large, 5000))).toBe(true);
    });

    test("nobody there, no answer, and a handler that fails are errors to try again", async () => {
      subject.other.serve("t.silent", async () => null);
      await subject.settled();
      expect(await failure(subject.bus.request("t.nobody", bytes(""), 1000))).toEqual(["BusNobody", "Retry"]);
      expect(await failure(subject.bus.request("t.silent", bytes(""), 50))).toEqual(["BusNoAnswer", "Retry"]);
      subject.other.serve("t.rejects", async () => Promise.reject(new Error("a test's")));
      subject.other.serve("t.throws", () => {
        throw new Error("a test's");
      });
      await subject.settled();
      for (const failing of ["t.rejects", "t.throws"])
        expect(await failure(subject.bus.request(failing, bytes(""), 50))).toEqual(["BusNoAnswer", "Retry"]);
      // What one handler does is nothing to the others.
      subject.other.serve("t.good", (data) => data);
      await subject.settled();
      expect(text(await subject.bus.request("t.good", bytes("x"), 1000))).toBe("x");
    });

    test("a subject that is served no longer has nobody", async () => {
      const served = subject.other.serve("t.gone", async (data) => data);
      await subject.settled();
      served.close();
      await subject.settled();
      expect(await failure(subject.bus.request("t.gone", bytes(""), 1000))).toEqual(["BusNobody", "Retry"]);
    });

    test("notices reach all who listen, in order, by pattern, until they stop", async () => {
      const heard: string[] = [];
      const listen = (data: Uint8Array, from: string): number => heard.push(`${from}:${text(data)}`);
      const one = subject.other.subscribe("n.*.state", listen);
      await subject.settled();
      for (const name of ["a.state:1", "a.state:2", "b.other:x", "a.b.state:x"]) {
        const [to = "", data = ""] = name.split(":");
        subject.bus.publish(`n.${to}`, bytes(data));
      }
      await expect.poll(() => heard).toEqual(["n.a.state:1", "n.a.state:2"]);
      one.close();
      subject.bus.publish("n.a.state", bytes("3"));
      await subject.settled();
      expect(heard).toHaveLength(2);
    });
  });
}
