// A process that puts objects into a directory bucket until it is killed, and prints each key that was answered. Started by
// directory-bucket.test.ts: `node put-loop.ts DIR ROUND`. Each object says its own key and ends with its SHA-256.
import { createHash } from "node:crypto";
import { SystemRandom } from "#shared/adapters/clock/system.ts";
import { DirectoryObjectStore } from "#shared/adapters/object-store/directory.ts";

export function selfDescribing(key: string, bytes: number): Buffer {
  const body = Buffer.alloc(bytes, `${key}\n`);
  return Buffer.concat([body, createHash("sha256").update(body).digest()]);
}

export function isWhole(key: string, content: Buffer): boolean {
  const body = content.subarray(0, -32);
  return body.toString("latin1").startsWith(`${key}\n`) && selfDescribing(key, body.length).equals(content);
}

if (import.meta.main) {
  const [root = "", round = ""] = process.argv.slice(2);
  const store = await DirectoryObjectStore.open(root, { random: new SystemRandom(), create: true });
  console.log("begins");
  const lane = async (number: number): Promise<void> => {
    for (let index = 0; ; index += 1) {
      const key = `objects/${round}/${index % 17}/${number}-${index}`;
      const content = selfDescribing(key, 1_000 + ((index * 7_919) % 300_000));
      const answer = await store.put(key, content, { onlyNew: index % 3 === 0 });
      console.log(`${answer} ${key}`);
    }
  };
  await Promise.all([1, 2, 3, 4].map(lane));
}
