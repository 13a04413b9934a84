import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

/*
 * What can go wrong between sessions, refresh tokens and the provider, and which tests hold against it. Every line is
 * checked below: `case: file below test: beginning of the test's name as it is written there`.
 *
 * G1: attack/refresh/locks.test.ts: G1: one resource
 * G2: attack/refresh/locks.test.ts: G2: four resources
 * G2: unit/tokens/access-tokens.test.ts: fifty callers for two resources use a refresh token twice
 * G3: attack/refresh/locks.test.ts: G3: requests 0 to 100 ms after the rotation
 * G4: attack/refresh/crash.test.ts: G4: is killed before the provider did anything
 * G4: attack/refresh/crash.test.ts: G4: is killed after the provider rotated
 * G4: attack/refresh/crash.test.ts: G4: is killed after the answer of a provider that takes refresh tokens again
 * G4: attack/refresh/crash.test.ts: G4: gives up on a slow provider before its lock ends
 * G4: attack/refresh/crash.test.ts: G4: stands still until its lock has ended
 * G4: unit/tokens/refresh/refresh.test.ts: a late write of a superseded attempt is refused
 * G4: attack/refresh/crash.test.ts: G4: a provider of 0.75, 3.75 and 10 times the timeout
 * G4: attack/refresh/crash.test.ts: G4: what was given up is not offered again
 * G4: attack/refresh/crash.test.ts: G4: a process is killed, before the provider rotated and after
 * G4: attack/refresh/crash.test.ts: G4: answers that come after every caller has given up
 * G5: flow/refresh-races.test.ts: is finished and kept when the client that asked for it leaves
 * G5: attack/refresh/sessions.test.ts: G5: the client leaves while one of them refreshes
 * G6: attack/refresh/attempts.test.ts: G6: Redis takes no more writes once the provider has rotated
 * G6: attack/refresh/attempts.test.ts: G6: Redis takes no writes before the provider is asked
 * G6: flow/redis-outage.test.ts: a crash while the provider rotates
 * G6: attack/refresh/attempts.test.ts: G6: full after the provider rotated
 * G6: attack/refresh/attempts.test.ts: G6: writes stand still after the provider rotated
 * G7: unit/oidc/token-endpoint/token-answer.test.ts: a lifetime is read from
 * G7: unit/oidc/token-endpoint/token-answer.test.ts: members that providers leave empty are as if absent
 * G7: kit/azure/azure-refusals.ts: an answer without refresh_token and expires_in is as good as any
 * G7: attack/refresh/answers.test.ts: G7: an answer that ${name} is good for all of them
 * G7: attack/refresh/answers.test.ts: G7: an answer that has no refresh_token leaves all of them
 * G8: attack/id-token.test.ts: of another sub ends the session and the grant
 * G8: attack/id-token.test.ts: with ${name}: its claims are not used, the access token is
 * G8: attack/refresh/answers.test.ts: G8: an ID token of another user ends the session
 * G8: attack/refresh/answers.test.ts: G8: an ID token with a foreign signature
 * G9: attack/refresh/answers.test.ts: G9: ${name} is
 * G9: attack/refresh/answers.test.ts: G9: content is opaque is sent
 * G9: kit/azure/azure-refusals.ts: an answer for another resource is never sent anywhere
 * G9: attack/refresh/answers.test.ts: G9: a token that ${name} is
 * G10: flow/reactions.test.ts: ${name}: the rest of the session stays
 * G10: kit/azure/azure-refusals.ts: ${name} wanted for one resource
 * G10: flow/step-up.test.ts: an API whose policy wants more is cured by the sign-in
 * G10: attack/refresh/answers.test.ts: G10: ${name} concerns one route of them all
 * G10: attack/refresh/answers.test.ts: G10: a sign-in for the claims
 * G10: attack/refresh/attempts.test.ts: R-063: living tokens are used on, the burnt one is offered by none
 * G10: attack/refresh/attempts.test.ts: R-063: a living token in its last half is used to its end
 * G11: attack/refresh/locks.test.ts: G11: a grant that is over ends the session once
 * G11: kit/azure/azure-refusals.ts: a dead refresh token (${outcome}): the session ends once
 * G12: flow/config-fault.test.ts: our client secret expires under 20 sessions
 * G12: kit/azure/azure-refusals.ts: our client secret refused with 401 (${outcome})
 * G12: attack/refresh/answers.test.ts: G12: ${error}: 502 from each of them, every session kept
 * G13: attack/token-endpoint-away.test.ts: G13: a token endpoint that ${name} is away for a while
 * G13: kit/azure/azure-refusals.ts: the provider passes (${outcome})
 * G13: flow/stampede.test.ts: a provider that answers 503 to a stampede
 * G13: flow/stampede.test.ts: a provider that is slower than all of them can wait
 * G13: flow/provider-outage.test.ts: the provider away: living tokens are used on
 * G13: attack/refresh/faults.test.ts: G13: fails in whatever way: tokens that should be renewed are used
 * G13: attack/refresh/faults.test.ts: G13: ${fault.name}: 503 with Retry-After from each of them
 * G13: attack/refresh/faults.test.ts: G13: says 503 to all: the circuit opens
 * G14: attack/refresh/attempts.test.ts: ${name} of the provider's, tokens of 60 s
 * G14: attack/refresh/attempts.test.ts: G14: ${name}: tokens of ${LONG_SECONDS} s are not renewed
 * G14: attack/refresh/attempts.test.ts: G14: ${name}: tokens of ${SHORT_SECONDS} s are renewed at the half
 * G14: attack/refresh/attempts.test.ts: G14: ${name}: a life that is told by its end alone
 * G15: flow/refresh-races.test.ts: does not revive a session that logs out meanwhile
 * G15: attack/refresh/sessions.test.ts: G15: a sign-out at one of them while another refreshes
 * G16: attack/reload-during-refresh.test.ts: G16: takes the resource away
 * G16: attack/reload-during-refresh.test.ts: G16: gives its name to another
 * G16: attack/reload-during-refresh.test.ts: G16: adds a resource
 * G16: attack/reload-during-refresh.test.ts: G16: again and again
 * G16: attack/changed-config.test.ts: tokens moved between sessions or resources in Redis open nowhere
 * G16: attack/refresh/sessions.test.ts: G16: a resource ${name} in all of them during a refresh
 * G17: attack/refresh/sessions.test.ts: G17: another user signs in with the same browser
 * G17: flow/refresh-races.test.ts: shares nothing between people
 * G17: attack/refresh/sessions.test.ts: G17: two sessions of one user, and another user
 * G18: attack/refresh/memory.test.ts: G18: resources and sessions whose names look alike
 * G18: unit/tokens/record/sealing.test.ts: names that look alike when joined stay apart
 * G18: attack/refresh/sessions.test.ts: G18: resources whose names look alike when joined
 * G19: unit/oidc/grants/dialects.test.ts: the ${line.dialect} dialect names resources exactly
 * G19: flow/azure-v1.test.ts: one sign-in, one refresh token, a token for each resource
 * G19: flow/entra-v2.test.ts: one sign-in, one refresh token, a token for each resource
 * G19: attack/refresh/dialects.test.ts: G19: ${name}: one resource by its own parameter
 * G20: attack/refresh/memory.test.ts: G20: after
 * G20: attack/refresh/memory.test.ts: G20: refusals of very many sessions
 * G20: attack/refresh/memory.test.ts: G20: the copies of tokens are bounded
 * G20: attack/refresh/locks.test.ts: G20: many sessions later nothing is under way
 * G20: attack/refresh/locks.test.ts: the metrics tell refreshes that worked
 */

const CASES = Array.from({ length: 20 }, (_, index) => `G${index + 1}`)

test('every case of the token engine has its tests, under the names that the table says', async () => {
  const self = await readFile(fileURLToPath(import.meta.url), 'utf8')
  const lines = [...self.matchAll(/^ \* (G\d+): ([\w./-]+\.ts): (.+)$/gm)]
  assert.deepEqual([...new Set(lines.map(([, number]) => number))], CASES)
  for (const [line, , file = '', name = ''] of lines) {
    const source = await readFile(new URL(`../../${file}`, import.meta.url), 'utf8')
    const found = ["'", '"', '`'].some((quote) => source.includes(`test(${quote}${name}`))
    assert.ok(found, line)
  }
})
