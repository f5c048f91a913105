/*
 * What JSON from the bucket must look like: small checks that are put together to the shape of a whole object, each with
 * all its fields and no other. A shape gives the first mistake as a sentence with its place, or null. One shape serves both
 * directions (sealed-object.ts); manifest-object.ts, base-object.ts and index-page.ts are made of them. Specified in
 * docs/formats/bucket.md#sealed-objects.
 */

/** The first mistake in `value`, or null. `at` is the place, for the message: `manifest.bases[3].s`. */
export type Shape = (value: unknown, at: string) => string | null;

/** A safe integer in [from, to]. */
export function integer(from = 0, to: number = Number.MAX_SAFE_INTEGER): Shape {
  return (value, at) =>
    Number.isSafeInteger(value) &&
    !Object.is(value, -0) &&
    (value as number) >= from &&
    (value as number) <= to
      ? null
      : `${at} is ${shown(value)}, not a whole number from ${from} to ${to}`;
}

/** Text that a pattern, or a rule that gives a mistake, takes. */
export function text(rule: RegExp | ((value: string) => string | null)): Shape {
  return (value, at) => {
    if (typeof value !== "string") return `${at} is ${shown(value)}, not text`;
    if (rule instanceof RegExp) return rule.test(value) ? null : `${at} is ${shown(value)}`;
    const mistake = rule(value);
    return mistake === null ? null : `${at} ${shown(value)} ${mistake}`;
  };
}

/** Exactly one of these. */
export function oneOf(values: readonly string[]): Shape {
  return (value, at) =>
    typeof value === "string" && values.includes(value)
      ? null
      : `${at} is ${shown(value)}, not one of ${values.join(", ")}`;
}

export function nullable(shape: Shape): Shape {
  return (value, at) => (value === null ? null : shape(value, at));
}

/** At most `most` elements of one shape. */
export function list(shape: Shape, most: number, least = 0): Shape {
  return (value, at) => {
    if (!Array.isArray(value)) return `${at} is ${shown(value)}, not a list`;
    if (value.length < least || value.length > most) {
      return `${at} has ${value.length} elements, not ${least} to ${most}`;
    }
    for (let index = 0; index < value.length; index += 1) {
      const mistake = shape(value[index], `${at}[${index}]`);
      if (mistake !== null) return mistake;
    }
    return null;
  };
}

/** An object with exactly these fields. With its type given, the compiler sees to it that none is forgotten. */
export function fields<T = Record<string, unknown>>(
  shapes: Readonly<Record<keyof T & string, Shape>>,
): Shape {
  const names = Object.keys(shapes);
  return (value, at) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return `${at} is ${shown(value)}, not an object`;
    }
    const content = value as Record<string, unknown>;
    for (const name of names) {
      if (!Object.hasOwn(content, name)) return `${at} has no ${name}`;
      const mistake = (shapes as Record<string, Shape>)[name]?.(content[name], `${at}.${name}`) ?? null;
      if (mistake !== null) return mistake;
    }
    const unknown = Object.keys(content).find((name) => !Object.hasOwn(shapes, name));
    return unknown === undefined ? null : `${at} has a field ${shown(unknown)} that no Varve knows`;
  };
}

/** One of several objects, told apart by the text in its field `kind`. */
export function tagged(shapes: Readonly<Record<string, Readonly<Record<string, Shape>>>>): Shape {
  const kind = oneOf(Object.keys(shapes));
  const byKind = new Map(
    Object.entries(shapes).map(([name, rest]) => [name, fields({ kind, ...rest })] as const),
  );
  return (value, at) => {
    const name = typeof value === "object" && value !== null && "kind" in value ? value.kind : undefined;
    return kind(name, `${at}.kind`) ?? (byKind.get(name as string) as Shape)(value, at);
  };
}

function shown(value: unknown): string {
  const json = JSON.stringify(value) ?? String(value);
  return json.length <= 80 ? json : `${json.slice(0, 77)}...`;
}
