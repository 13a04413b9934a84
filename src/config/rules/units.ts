import type { RateLimit } from '../config.ts'
import type { Rule } from './rule.ts'

const MS_PER_UNIT: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

const BYTES_PER_UNIT: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1_000,
  KiB: 1_024,
  MB: 1_000_000,
  MiB: 1_048_576,
  GB: 1_000_000_000,
  GiB: 1_073_741_824,
}

/** How long to wait for something, in ms. At most 24d: Node's timers fire at once beyond 2^31 ms. */
export const TIMEOUT = durationUpTo(24, '5s')

/** How far another clock may be from ours, in ms. More than ten minutes is a clock to be put right. */
export const CLOCK_TOLERANCE = durationFromNone('60s')

/** How long a process that is told to end still accepts, in ms. */
export const DRAIN_DELAY = durationFromNone('5s')

/** How long a session lives, in ms. At most 400d, the longest life browsers give a cookie (RFC 6265bis). */
export const SESSION_TIME = durationUpTo(400, '30m')

/** A size in bytes. */
export const SIZE: Rule<number> = {
  must: 'must be a size with its unit (B, KB, KiB, MB, MiB, GB or GiB), more than nothing',
  example: '10MiB',
  parse: (text) => quantity(text, BYTES_PER_UNIT, Number.MAX_SAFE_INTEGER),
  because: (text) => misspelt(text, BYTES_PER_UNIT),
}

/** Requests in a time, at most a day; `off` is no limit. */
export const RATE_LIMIT: Rule<RateLimit | 'off'> = {
  must: 'must be REQUESTS/DURATION, such as 60/1m, with at most 1000000 requests and 1d; or off',
  example: '600/1m',
  parse(text) {
    if (text === 'off') return text
    const [, requests = '', duration = ''] = /^([1-9]\d{0,6})\/(.+)$/.exec(text) ?? []
    const perMs = quantity(duration, MS_PER_UNIT, MS_PER_UNIT.d!)
    if (perMs === undefined || perMs < 1_000 || Number(requests) > 1_000_000) return undefined
    return { requests: Number(requests), perMs }
  },
}

function durationUpTo(days: number, example: string): Rule<number> {
  return {
    must: `must be a duration with its unit (ms, s, m, h or d), more than nothing and at most ${days}d`,
    example,
    parse: (text) => quantity(text, MS_PER_UNIT, days * 86_400_000),
    because: (text) => misspelt(text, MS_PER_UNIT),
  }
}

function durationFromNone(example: string): Rule<number> {
  return {
    must: 'must be a duration with its unit (ms, s or m), from 0s to 10m',
    example,
    parse: (text) => (/^0 ?(?:ms|s|m)$/.test(text) ? 0 : quantity(text, MS_PER_UNIT, 600_000)),
    because: (text) => misspelt(text, MS_PER_UNIT),
  }
}

function quantity(text: string, units: Readonly<Record<string, number>>, max: number): number | undefined {
  const [, digits, unit] = /^(\d+) ?([A-Za-z]+)$/.exec(text) ?? []
  if (digits === undefined || unit === undefined || !Object.hasOwn(units, unit)) return undefined
  const total = Number(digits) * units[unit]!
  return total > 0 && total <= max ? total : undefined
}

/** What other programs call a unit. */
const OTHER_UNITS: Readonly<Record<string, string>> = {
  ...{ msec: 'ms', millis: 'ms', sec: 's', secs: 's', second: 's', seconds: 's' },
  ...{ min: 'm', mins: 'm', minute: 'm', minutes: 'm', hr: 'h', hrs: 'h', hour: 'h', hours: 'h' },
  ...{ day: 'd', days: 'd', k: 'KiB', ki: 'KiB', m: 'MiB', mi: 'MiB', g: 'GiB', gi: 'GiB' },
}

/** What is wrong with a quantity, where it can be told. */
function misspelt(text: string, units: Readonly<Record<string, number>>): string | undefined {
  const known = Object.keys(units)
  const listed = `${known.slice(0, -1).join(', ')} or ${known.at(-1)}`
  const [, number, unit] = /^(\d+(?:\.\d+)?) ?([A-Za-z]+)$/.exec(text) ?? []
  if (number?.includes('.')) return `must be a whole number with its unit (${listed})`
  if (unit === undefined)
    return /^\d+ ?[A-Za-z]+ ?\d/.test(text) ? `must be one number with one unit (${listed})` : undefined
  if (known.includes(unit)) return undefined
  const meant =
    known.find((name) => name.toLowerCase() === unit.toLowerCase()) ?? OTHER_UNITS[unit.toLowerCase()]
  if (meant === undefined || !known.includes(meant)) return undefined
  return `must have one of the units ${listed} (did you mean ${number}${meant}?)`
}
