// Bucket URLs as users write them, the wrong ones with what is wrong, and that no message repeats a secret.
import { describe, expect, test } from "vitest";
import { bucketPlace, parseBucketUrl } from "#shared/domain/bucket-url.ts";

describe("right URLs", () => {
  const cases: readonly (readonly [string, object, string])[] = [
    [
      "file:///var/lib/varve/bucket",
      { kind: "directory", path: "/var/lib/varve/bucket" },
      "file:///var/lib/varve/bucket",
    ],
    ["file://localhost/a%20b/", { kind: "directory", path: "/a b" }, "file:///a b"],
    [
      "s3://past",
      { kind: "s3", bucket: "past", prefix: "", endpoint: null, region: null, pathStyle: false },
      "s3://past at AWS",
    ],
    [
      "s3://past/lab/disks/?endpoint=http://10.0.0.5:8333&region=eu-central-1",
      {
        kind: "s3",
        bucket: "past",
        prefix: "lab/disks/",
        endpoint: "http://10.0.0.5:8333",
        region: "eu-central-1",
        pathStyle: true,
      },
      "s3://past/lab/disks at 10.0.0.5:8333",
    ],
    [
      "s3://past/?endpoint=https%3A%2F%2Fs3.example.org%2F&path-style=false",
      {
        kind: "s3",
        bucket: "past",
        prefix: "",
        endpoint: "https://s3.example.org",
        region: null,
        pathStyle: false,
      },
      "s3://past at s3.example.org",
    ],
  ];
  test.each(cases)("%s", (text, address, place) => {
    const parsed = parseBucketUrl(text);
    expect(parsed).toEqual(address);
    expect(bucketPlace(parsed as Exclude<typeof parsed, string>)).toBe(place);
  });
});

describe("wrong URLs", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["", /neither/],
    ["/var/lib/bucket", /write file:\/\//],
    ["bucket", /neither/],
    ["http://host/bucket", /neither/],
    ["file://bucket", /absolute/],
    ["file:bucket", /absolute/],
    ["file:///", /root directory/],
    ["file:///a/../b", /"\.\."/],
    ["file:///a%zz", /escape/],
    ["file:///a%00", /escape/],
    ["file:///a?create=true", /absolute/],
    ["s3:past", /form/],
    ["s3://", /bucket name/],
    ["s3://p", /bucket name/],
    ["s3://past#x", /form/],
    ["s3://past/a//b", /prefix/],
    ["s3://past/../x", /prefix/],
    ["s3://past/a b", /prefix/],
    [`s3://past/${"x".repeat(257)}`, /prefix/],
    ["s3://past?endpoint=localhost:9000", /http/],
    ["s3://past?endpoint=http://", /no URL/],
    ["s3://past?endpoint=http://host/path", /more than host/],
    ["s3://past?endpoint=", /no value/],
    ["s3://past?region=a&region=b", /twice/],
    ["s3://past?region=eu%20west", /region/],
    ["s3://past?path-style=yes", /path-style/],
    ["s3://past?colour=red", /known are endpoint, region, path-style/],
  ];
  test.each(cases)("%s", (text, what) => {
    expect(parseBucketUrl(text)).toMatch(what);
  });

  test("credentials are refused wherever they stand, and never repeated", () => {
    const secret = "wJalrXUtnFEMI";
    const texts = [
      `s3://AKIAIOSFODNN:${secret}@past/x`,
      `s3://${secret}@past`,
      `s3://past?endpoint=http://user:${secret}@host:9000`,
      `s3://past?secret-access-key=${secret}`,
      `s3://past?access_key=${secret}`,
      `s3://past?session-token=${secret}`,
      `s3://past?password=${secret}`,
    ];
    for (const text of texts) expect(parseBucketUrl(text), text).toMatch(/^holds credentials/);
    const others = [
      `s3://past/${secret}%`,
      `s3://past?${secret}`,
      `s3://past?region=${secret}/`,
      `${secret}://past`,
      `s3://past?endpoint=${secret}`,
    ];
    for (const text of [...texts, ...others]) {
      const message = parseBucketUrl(text);
      expect(typeof message).toBe("string");
      expect(message).not.toContain(secret);
    }
  });
});
