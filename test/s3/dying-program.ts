// In place of s3-program.ts: keeps what it is asked, answers a head, dies at a delete.
import { parentPort } from "node:worker_threads";

interface Asked {
  readonly number: number;
  readonly task: { readonly kind: string } | null;
}

parentPort?.on("message", ({ number, task }: Asked) => {
  if (task?.kind === "delete") throw new Error("varve-test-secret");
  if (task?.kind !== "head") return;
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port, not a window
  parentPort?.postMessage({ number, result: { key: "alive", bytes: 1, modifiedMs: 2 } });
});
