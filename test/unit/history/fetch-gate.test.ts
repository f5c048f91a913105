// Memory of what is fetched: what fits starts, the rest waits in order; what says where bytes are goes before bytes.
import { describe, expect, test } from "vitest";
import { FetchGate } from "#shared/adapters/history/fetch-gate.ts";

interface Held {
  readonly name: string;
  readonly end: () => void;
}

class Fetches {
  readonly gate = new FetchGate(10, 3);
  readonly started: Held[] = [];

  start(name: string, kind: "places" | "bytes", bytes: number): void {
    void this.gate.run(kind, bytes, () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.started.push({ name, end: resolve });
      return promise;
    });
  }

  async end(name: string): Promise<void> {
    this.started.find((held) => held.name === name)?.end();
    await new Promise((resolve) => setImmediate(resolve));
  }

  get names(): string {
    return this.started.map(({ name }) => name).join(" ");
  }
}

describe("the gate of fetches", () => {
  test("places go before bytes that waited longer, bytes in their order", async () => {
    const fetches = new Fetches();
    for (const name of ["a", "b", "c", "d", "e"]) fetches.start(name, "bytes", 2);
    fetches.start("footer", "places", 2);
    fetches.start("page", "places", 2);
    await fetches.end("");
    expect(fetches.names).toBe("a b c");
    await fetches.end("b");
    expect(fetches.names).toBe("a b c footer");
    await fetches.end("a");
    await fetches.end("c");
    expect(fetches.names).toBe("a b c footer page d");
    await fetches.end("footer");
    expect(fetches.names).toBe("a b c footer page d e");
  });

  test("a large one is not overtaken by later small ones of its kind, and what is larger than all goes alone", async () => {
    const fetches = new Fetches();
    fetches.start("small", "bytes", 4);
    fetches.start("large", "bytes", 100);
    fetches.start("late", "bytes", 1);
    await fetches.end("");
    expect(fetches.names).toBe("small");
    await fetches.end("small");
    expect(fetches.names).toBe("small large");
    await fetches.end("large");
    expect(fetches.names).toBe("small large late");
    await fetches.end("late");
    expect(fetches.gate.statistics()).toEqual({ bytes: 0, count: 0, waiting: 0, peakBytes: 10 });
  });
});
