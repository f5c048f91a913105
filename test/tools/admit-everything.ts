// A file system without end, as volume sessions see it: for tests in which room is not the matter. Tests of room use
// services/storage/engine/space-reserve.ts on a store with a quota.
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";

export const admitEverything: SpaceAdmission = {
  refuse: () => null,
  admit: () => undefined,
  settle: () => undefined,
  withdraw: () => undefined,
  takesOverwrites: true,
  makeRoom: async () => false,
};
