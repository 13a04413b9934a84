import type { Caller, Configuration } from './configuration.ts'

/** A configuration and the words for it. */
export type System = Configuration & { readonly name: string }

/** `A.orders B.billing!`: A is asked for orders, and B for billing by somebody whose upstream has rejected its token. */
export function callersOf(text: string): Caller[] {
  return text.split(' ').map((word) => {
    const [replica = '', as = ''] = word.replace('!', '').split('.')
    return { replica, as, resource: as.replace(/\d$/, ''), isForced: word.endsWith('!') }
  })
}

function systems(callers: string, variants: readonly Omit<Configuration, 'callers'>[]): System[] {
  return variants.map((variant) => ({
    ...variant,
    callers: callersOf(callers),
    name: [callers, ...describeVariant(variant)].join(', '),
  }))
}

function describeVariant({ faults = {}, hasSignOut, isStrict }: Omit<Configuration, 'callers'>): string[] {
  return [
    ...Object.entries(faults).map(([fault, times]) => `${times} ${fault}`),
    ...(hasSignOut ? ['a sign-out'] : []),
    ...(isStrict ? ['reuse forbidden'] : []),
  ]
}

const CRASH_AND_EXPIRY: Omit<Configuration, 'callers'>[] = [
  { faults: { crash: 1, expiry: 1 } },
  { faults: { crash: 1, expiry: 1 }, isStrict: true },
]

const EACH_FAULT: Omit<Configuration, 'callers'>[] = [
  {},
  { faults: { expiry: 1 } },
  { faults: { crash: 1 } },
  { faults: { lostRequest: 1 } },
  { faults: { lostAnswer: 1 } },
  { faults: { failedWrite: 1 } },
  { faults: { lostWrite: 1 } },
  { hasSignOut: true },
]

/** What `npm test` explores: a few seconds. */
export const SMALL_SYSTEMS: readonly System[] = [
  ...systems('A.orders B.billing', [
    ...EACH_FAULT,
    ...CRASH_AND_EXPIRY,
    { faults: { lostAnswer: 1 }, isStrict: true },
    { faults: { pause: 1 } },
  ]),
  ...systems('A.orders B.orders', [...EACH_FAULT, ...CRASH_AND_EXPIRY]),
  ...systems('A.orders A.orders2 B.orders', [{}]),
  ...systems('A.orders! B.orders!', [{}, { faults: { expiry: 1 } }, { hasSignOut: true }]),
  ...systems('A.orders A.billing B.orders B.billing', [{}]),
]

/** What `npm run model` explores beside that: a minute or two. */
export const LARGE_SYSTEMS: readonly System[] = [
  ...systems('A.orders A.billing B.orders B.billing', [...EACH_FAULT.slice(1), ...CRASH_AND_EXPIRY]),
  ...systems('A.orders B.billing', [
    { faults: { expiry: 1, pause: 1 } },
    { faults: { expiry: 1, pause: 1 }, isStrict: true },
    { faults: { expiry: 2 } },
    { faults: { expiry: 1 }, hasSignOut: true },
  ]),
  ...systems('A.orders A.billing B.orders', [
    { faults: { pause: 1 } },
    { faults: { crash: 1, expiry: 1, lostAnswer: 1 } },
    { faults: { crash: 1 }, hasSignOut: true },
    { faults: { expiry: 1 }, hasSignOut: true },
  ]),
  ...systems('A.orders A.orders2 B.orders', CRASH_AND_EXPIRY),
  ...systems('A.orders! A.billing B.orders!', CRASH_AND_EXPIRY),
  ...systems('A.orders B.orders C.orders', CRASH_AND_EXPIRY),
]
