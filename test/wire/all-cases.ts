import { BODY_CASES } from './cases/bodies.ts'
import { BROWSER_CASES } from './cases/browser.ts'
import { FRAMING_CASES } from './cases/framing.ts'
import { LIMIT_CASES } from './cases/limits.ts'
import { OWN_ENDPOINT_CASES } from './cases/own-endpoints.ts'
import { PATH_CASES } from './cases/paths.ts'
import { REQUEST_HEADER_CASES } from './cases/request-headers.ts'
import { REQUEST_CASES } from './cases/requests.ts'
import { RESPONSE_CASES } from './cases/responses.ts'
import { HOST_CASES, LONG_TARGET_CASES, REWRITE_CASES, TARGET_CASES } from './cases/targets.ts'
import { UNTOUCHED_RESPONSE_CASES } from './cases/untouched-responses.ts'
import { UPGRADE_CASES } from './cases/upgrades.ts'
import { UPSTREAM_CASES } from './cases/upstreams.ts'
import type { WireCase } from './wire-case.ts'

/** Every row of every table. */
export const ALL_CASES: readonly WireCase[] = [
  ...PATH_CASES,
  ...TARGET_CASES,
  ...REWRITE_CASES,
  ...HOST_CASES,
  ...LONG_TARGET_CASES,
  ...FRAMING_CASES,
  ...BODY_CASES,
  ...LIMIT_CASES,
  ...REQUEST_HEADER_CASES,
  ...REQUEST_CASES,
  ...BROWSER_CASES,
  ...OWN_ENDPOINT_CASES,
  ...UPSTREAM_CASES,
  ...RESPONSE_CASES,
  ...UNTOUCHED_RESPONSE_CASES,
  ...UPGRADE_CASES,
]
