/** 0.042 → 0.04, 12.34 → 12.3, 1234 → 1,234. */
export function number(value) {
  if (value === 0) return '0'
  const digits = value < 1 ? 2 : value < 100 ? 1 : 0
  const text = value.toLocaleString('en', { maximumFractionDigits: digits })
  return text === '0' ? '<0.01' : text
}

/** A time in ms, as a person reads it; a dash where nothing was timed. */
export function ms(value) {
  if (value === null || value === undefined) return '–'
  if (value >= 10_000) return `${Math.round(value / 1000)} s`
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`
  return value >= 10 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`
}

/** Seconds as the two largest units: 1 d 4 h, 12 min, 8 s. */
export function duration(seconds) {
  const units = [
    ['d', 86_400],
    ['h', 3_600],
    ['min', 60],
    ['s', 1],
  ]
  const at = units.findIndex(([, size]) => seconds >= size)
  if (at === -1) return '0 s'
  const [name, size] = units[at]
  const rest = units[at + 1] ? Math.floor((seconds % size) / units[at + 1][1]) : 0
  return `${Math.floor(seconds / size)} ${name}${rest > 0 && at < 2 ? ` ${rest} ${units[at + 1][0]}` : ''}`
}

/** The time of day of an ISO time, in UTC as the log has it. */
export const clock = (iso) => iso.slice(11, 19)

/** A share from 0 to 1. */
export function percent(share) {
  if (share === 0) return '0%'
  return share < 0.001 ? '<0.1%' : `${number(share * 100)}%`
}

/** The words of one trouble, the most telling first. */
export function causeOf({
  reason,
  oauthError,
  suberror,
  errorCodes,
  outcome,
  step,
  claim,
  resource,
  upstream,
  traceId,
  correlationId,
  cause,
  cure,
}) {
  const named = {
    ...{ 'provider says': oauthError === reason ? undefined : oauthError, suberror, codes: errorCodes },
    ...{ outcome: outcome === reason ? undefined : outcome, step, claim, resource, upstream },
    ...{ trace: traceId, correlation: correlationId },
  }
  const facts = Object.entries(named).flatMap(([name, value]) => (value ? [`${name} ${value}`] : []))
  return [reason, ...facts, cause, cure].filter(Boolean).join(' · ')
}
