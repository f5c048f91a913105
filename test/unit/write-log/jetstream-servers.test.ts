// Which servers may hold a log, judged from what they say. How they are asked is in test/nats/settings.test.ts.
import { expect, test } from "vitest";
import { serverMistakes } from "#shared/adapters/write-log/jetstream-servers.ts";

const fine = (name: string) => ({ name, version: "2.15.1", syncAlways: true });

test("all in order, or a majority of them", () => {
  expect(serverMistakes(["a"], [fine("a")])).toEqual([]);
  expect(serverMistakes(["a", "b", "c"], [fine("a"), fine("b"), fine("c")])).toEqual([]);
  expect(serverMistakes(["a", "b", "c"], [fine("c"), fine("a")])).toEqual([]);
  expect(serverMistakes(["a"], [{ ...fine("a"), version: "2.16.0-RC.1" }])).toEqual([]);
});

test("servers that hold no part of the stream don't count", () => {
  expect(serverMistakes(["a"], [fine("a"), { name: "z", version: "2.9.10", syncAlways: false }])).toEqual([]);
  expect(serverMistakes(["a", "b", "c"], [fine("a"), fine("x"), fine("y")])).toMatchObject([
    expect.stringContaining("the settings of b, c could not be asked, 2 of 3 are needed"),
  ]);
});

test("old and strange versions, and servers that don't sync, each by name", () => {
  const found = [
    { name: "a", version: "2.14.9", syncAlways: true },
    { name: "b", version: "3.0.0", syncAlways: false },
    { name: "c", version: "x", syncAlways: true },
  ];
  expect(serverMistakes(["a", "b", "c"], found)).toEqual([
    "a is version 2.14.9, not 2.15 or a later 2.x",
    "b is version 3.0.0, not 2.15 or a later 2.x",
    "b does not sync what it acknowledges: set `jetstream { sync_interval: always }`",
    "c is version x, not 2.15 or a later 2.x",
  ]);
});
