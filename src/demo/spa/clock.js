/** `14:03:59` for a time in epoch seconds. */
export function clockTime(epochSeconds) {
  return new Date(epochSeconds * 1000).toLocaleTimeString(undefined, { hourCycle: 'h23' })
}

/** Seconds until a time in epoch seconds; 0 when it has passed. */
export function secondsUntil(epochSeconds) {
  return Math.max(0, epochSeconds - Date.now() / 1000)
}

/** `29:59`, or `9:59:59` from an hour on. */
export function countdown(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60]
  const parts = [...(hours ? [hours] : []), minutes, Math.floor(seconds) % 60]
  return parts.map((part, index) => String(part).padStart(index ? 2 : 1, '0')).join(':')
}
