/*
 * What a bucket costs, as data: one table of list prices, and sums over it. An estimate for orientation; whoever pays another
 * price has the bytes and requests beside it. Pure; used by services/archiver/engine/bucket-usage.ts.
 */

export interface BucketPrices {
  readonly name: string;
  /** US dollars. */
  readonly gibMonth: number;
  readonly thousandPuts: number;
  readonly thousandGets: number;
}

/** AWS S3 Standard in us-east-1, first 50 TB, without transfer. DELETE is free; LIST costs as a PUT, HEAD as a GET. */
export const s3Standard: BucketPrices = {
  name: "AWS S3 Standard, us-east-1",
  gibMonth: 0.023,
  thousandPuts: 0.005,
  thousandGets: 0.0004,
};

/** A directory or a server of one's own. */
export const ownDisks: BucketPrices = {
  name: "own disks, no price",
  gibMonth: 0,
  thousandPuts: 0,
  thousandGets: 0,
};

const gib = 1024 ** 3;

export function storageCost(prices: BucketPrices, bytes: number): number {
  return (bytes / gib) * prices.gibMonth;
}

export function requestCost(prices: BucketPrices, requests: Readonly<Record<string, number>>): number {
  const count = (kind: string): number => requests[kind] ?? 0;
  const puts = count("put") + count("list");
  const gets = count("get") + count("head");
  return (puts * prices.thousandPuts + gets * prices.thousandGets) / 1000;
}
