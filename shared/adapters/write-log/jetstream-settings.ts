/*
 * How a stream must be set to be a log, and what of a found one is not so. Pure. Called by jetstream-stream.ts when it makes
 * or moves one, and by the take-over, which refuses a stream with anything else (docs/specs/jetstream-log.md, "The stream").
 */
import { DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig } from "@nats-io/jetstream";

/** What a volume's policy says; applied at each take-over. */
export interface StreamSize {
  readonly replicas: number;
  readonly bytesMax: number;
}

export type NewSettings = Partial<StreamConfig> & { readonly name: string };

export function newSettings(name: string, subject: string, size: StreamSize): NewSettings {
  return {
    name,
    subjects: [subject],
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: DiscardPolicy.New,
    num_replicas: size.replicas,
    max_bytes: size.bytesMax,
    max_age: 0,
    max_msgs: -1,
    max_msgs_per_subject: -1,
    max_msg_size: -1,
    deny_delete: true,
    allow_direct: false,
  };
}

/** The same with another subject and the policy's size. */
export function changedSettings(
  found: StreamConfig,
  subject: string,
  size: StreamSize,
): Partial<StreamConfig> {
  return { ...found, subjects: [subject], num_replicas: size.replicas, max_bytes: size.bytesMax };
}

/** Fields that Varve never sets: any value but these would change what was stored, or acknowledge what is not. */
const forbidden: readonly (readonly [field: string, why: string, harmless: readonly unknown[]])[] = [
  ["mirror", "is a mirror", [undefined]],
  ["sources", "takes messages from other streams", [undefined]],
  ["subject_transform", "changes subjects", [undefined]],
  ["no_ack", "does not answer", [undefined, false]],
  ["sealed", "is sealed", [undefined, false]],
  ["deny_purge", "can't be released (deny_purge)", [undefined, false]],
  ["allow_rollup_hdrs", "lets one message replace others (allow_rollup_hdrs)", [undefined, false]],
  ["allow_msg_ttl", "lets messages expire (allow_msg_ttl)", [undefined, false]],
  ["discard_new_per_subject", "limits messages of a subject", [undefined, false]],
  ["persist_mode", "acknowledges before messages are stored (persist_mode)", [undefined, "", "default"]],
  ["template_owner", "is made from a template", [undefined, ""]],
];

/** What makes the found stream no log, in words for people; [] where it is one. `isOwn` tells the subjects of this log. */
export function settingsMistakes(
  found: StreamConfig,
  isOwn: (subject: string) => boolean,
): readonly string[] {
  const mistakes: string[] = [];
  const expect = (holds: boolean, mistake: string): void => {
    if (!holds) mistakes.push(mistake);
  };
  expect(found.retention === RetentionPolicy.Limits, `retention is ${found.retention}, not limits`);
  expect(found.storage === StorageType.File, `storage is ${found.storage}, not file`);
  expect(
    found.discard === DiscardPolicy.New,
    `discard is ${found.discard}, not new: it would forget the oldest`,
  );
  expect(found.max_age === 0, "max_age is set: entries would be forgotten by their age");
  expect(found.max_msgs === -1, "max_msgs is set: entries would be forgotten by their number");
  expect(found.max_msgs_per_subject === -1, "max_msgs_per_subject is set");
  const subjects = found.subjects.filter((subject) => !isOwn(subject));
  expect(subjects.length === 0, `it captures foreign subjects: ${subjects.join(", ")}`);
  expect(found.subjects.length === 1, `it captures ${found.subjects.length} subjects, not one`);
  const fields = found as unknown as Readonly<Record<string, unknown>>;
  for (const [field, why, harmless] of forbidden) {
    const value = fields[field];
    const empty = Array.isArray(value) && value.length === 0;
    expect(empty || harmless.includes(value), `it ${why}`);
  }
  return mistakes;
}
