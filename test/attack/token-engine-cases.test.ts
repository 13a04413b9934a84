import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

/*
 * What can go wrong between sessions, refresh tokens and the provider, and which tests hold against it. Every line is
 * checked below: `case: file below test: beginning of the test's name as it is written there`.
 *
 * G1: attack/token-engine-fleet.test.ts: G1: one resource
 * G2: attack/token-engine-fleet.test.ts: G2: four resources
 * G2: unit/tokens/access-tokens.test.ts: fifty callers for two resources spend the refresh token twice
 * G3: attack/token-engine-fleet.test.ts: G3: whoever comes 0 to 100 ms after the rotation
 * G4: attack/token-engine-crash.test.ts: G4: is killed before the provider did anything
 * G4: attack/token-engine-crash.test.ts: G4: is killed after the provider rotated
 * G4: attack/token-engine-crash.test.ts: G4: is killed after the answer of a provider that takes refresh tokens again
 * G4: attack/token-engine-crash.test.ts: G4: gives up on a slow provider before its lock ends
 * G4: attack/token-engine-crash.test.ts: G4: stands still until its lock has ended
 * G4: unit/tokens/spend.test.ts: a late write of a superseded spend is refused
 * G5: flow/refresh-races.test.ts: is finished and kept when the client that asked for it leaves
 * G6: attack/token-engine-answers.test.ts: G6: Redis takes no more writes once the provider has rotated
 * G6: attack/token-engine-answers.test.ts: G6: Redis takes no writes before the provider is asked
 * G6: flow/redis-outage.test.ts: a crash while the provider rotates
 * G7: unit/oidc/token-answer.test.ts: a lifetime is read from
 * G7: unit/oidc/token-answer.test.ts: members that providers leave empty are as if absent
 * G7: flow/azure-refusals.ts: an answer without refresh_token and expires_in is as good as any
 * G8: attack/id-token.test.ts: of another sub ends the session and the grant
 * G8: attack/id-token.test.ts: with ${name}: the answer is not used, the rotated refresh token is kept
 * G9: attack/token-engine-answers.test.ts: G9: ${name} is
 * G9: attack/token-engine-answers.test.ts: G9: content is opaque is sent
 * G9: flow/azure-refusals.ts: an answer for another resource is never sent anywhere
 * G10: flow/reactions.test.ts: ${name}: the rest of the session stays
 * G10: flow/azure-refusals.ts: ${name} wanted for one resource
 * G10: flow/step-up.test.ts: an API whose policy wants more is cured by the sign-in
 * G11: attack/token-engine-fleet.test.ts: G11: a grant that is over ends the session once
 * G11: flow/azure-refusals.ts: a dead refresh token (${outcome}): the session ends once
 * G12: flow/config-fault.test.ts: our client secret expires under 20 sessions
 * G12: flow/azure-refusals.ts: our client secret refused with 401 (${outcome})
 * G13: attack/token-engine-answers.test.ts: ${name} is away for a while
 * G13: flow/azure-refusals.ts: the provider passes (${outcome})
 * G13: flow/stampede.test.ts: a provider that answers 503 to a stampede
 * G13: flow/provider-outage.test.ts: the provider away: living tokens are used on
 * G14: attack/token-engine-answers.test.ts: ${name} of the provider's, tokens of 60 s
 * G15: flow/refresh-races.test.ts: does not revive a session that logs out meanwhile
 * G16: attack/reload-during-refresh.test.ts: G16: takes the resource away
 * G16: attack/reload-during-refresh.test.ts: G16: gives its name to another
 * G16: attack/reload-during-refresh.test.ts: G16: adds a resource
 * G16: attack/reload-during-refresh.test.ts: G16: again and again
 * G16: attack/changed-config.test.ts: tokens moved between sessions or resources in Redis open nowhere
 * G17: attack/token-engine-answers.test.ts: G17: another user signs in with the same browser
 * G17: flow/refresh-races.test.ts: shares nothing between people
 * G18: attack/token-engine-memory.test.ts: G18: resources and sessions whose names look alike
 * G18: unit/tokens/sealed.test.ts: names that look alike when joined stay apart
 * G19: unit/oidc/dialects.test.ts: the ${line.dialect} dialect names resources exactly
 * G19: flow/azure-v1.test.ts: one sign-in, one refresh token, a token for each resource
 * G19: flow/entra-v2.test.ts: one sign-in, one refresh token, a token for each resource
 * G20: attack/token-engine-memory.test.ts: G20: after
 * G20: attack/token-engine-memory.test.ts: G20: refusals of very many sessions
 * G20: attack/token-engine-memory.test.ts: G20: the copies of tokens are bounded
 */

const CASES = Array.from({ length: 20 }, (_, index) => `G${index + 1}`)

test('every case of the token engine has its tests, under the names that the table says', async () => {
  const self = await readFile(fileURLToPath(import.meta.url), 'utf8')
  const lines = [...self.matchAll(/^ \* (G\d+): ([\w./-]+\.ts): (.+)$/gm)]
  assert.deepEqual([...new Set(lines.map(([, number]) => number))], CASES)
  for (const [line, , file = '', name = ''] of lines) {
    const source = await readFile(new URL(`../${file}`, import.meta.url), 'utf8')
    const found = ["'", '"', '`'].some((quote) => source.includes(`test(${quote}${name}`))
    assert.ok(found, line)
  }
})
