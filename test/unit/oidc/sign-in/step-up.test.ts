import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError, type StepUp, stepUpFingerprint } from '../../../../src/errors.ts'
import { createSingleUseReferences } from '../../../../src/oidc/sign-in/single-use-references.ts'
import { type AskedStepUp, createStepUps, STEP_UP_LIFETIME_MS } from '../../../../src/oidc/sign-in/step-up.ts'
import { loginRecordsInSight } from '../../../kit/store/login-records.ts'

const STEP_UP: StepUp = { resource: 'orders', acrValues: 'mfa' }
const SESSION = { hash: 'hash-1', claims: { sub: 'ada' } }

function setUp() {
  const clock = { at: 0 }
  const store = loginRecordsInSight()
  const stepUps = createStepUps({
    references: createSingleUseReferences<AskedStepUp>(store.deps, {
      kind: 'step-up',
      lifetimeMs: STEP_UP_LIFETIME_MS,
    }),
    ...{ loginPath: '/bff/login', monotonicNow: () => clock.at, now: () => clock.at },
  })
  const refused = (stepUp = STEP_UP) =>
    new BffError('reauthentication_required', 'the API wants more', {
      ...{ details: { reason: 'interaction_required' }, retryAfterSeconds: 7, stepUp },
    })
  const refusal = async (session: Parameters<typeof stepUps.withLoginUrl>[1] = SESSION, stepUp = STEP_UP) => {
    const error = await stepUps.withLoginUrl(refused(stepUp), session)
    assert.ok(error instanceof BffError)
    return error
  }
  const loginUrl = async (...more: Parameters<typeof refusal>) =>
    String((await refusal(...more)).details?.login_url)
  return { ...store, ...stepUps, clock, refused, refusal, loginUrl }
}

const challengeOf = (url: string) => new URL(url, 'https://app.test').searchParams.get('challenge')

test('a refusal gets a login_url whose challenge stands for the step-up and the user who must come back from it', async () => {
  const { refusal, look, kept } = setUp()
  const { code, details, retryAfterSeconds, stepUp } = await refusal()
  assert.equal(code, 'reauthentication_required')
  assert.match(String(details?.login_url), /^\/bff\/login\?challenge=[\w-]{43}$/)
  assert.deepEqual([details?.reason, retryAfterSeconds], ['interaction_required', 7])
  assert.equal(stepUp, undefined, 'what is asked for stays on our side')
  assert.deepEqual(await look(challengeOf(String(details?.login_url))), { stepUp: STEP_UP, sub: 'ada' })
  assert.deepEqual(
    [...kept.values()].map(({ ttlMs }) => ttlMs),
    [15 * 60_000],
  )
})

test('refusals of one session for one step-up share a challenge for ten seconds; others have their own', async () => {
  const { loginUrl, clock } = setUp()
  const [first, second] = await Promise.all([loginUrl(), loginUrl()])
  assert.equal(first, second)
  clock.at = 9_999
  assert.equal(await loginUrl(), first)
  assert.notEqual(await loginUrl({ ...SESSION, hash: 'hash-2' }), first)
  assert.notEqual(await loginUrl(SESSION, { ...STEP_UP, acrValues: 'phr' }), first)
  assert.equal(await loginUrl(), first)
  clock.at = 10_000
  assert.notEqual(await loginUrl(), first)
})

test('a challenge that was used is given to no later refusal, and its step-up only once', async () => {
  const { loginUrl, take } = setUp()
  const first = await loginUrl()
  assert.deepEqual(await take(challengeOf(first)), { stepUp: STEP_UP, sub: 'ada' })
  assert.equal(await take(challengeOf(first)), undefined)
  assert.notEqual(await loginUrl(), first)
})

test('what is no challenge stands for nothing, and spoils none', async () => {
  const { loginUrl, take, look } = setUp()
  const first = await loginUrl()
  for (const challenge of [undefined, '', 'x'.repeat(43), [challengeOf(first)], 7]) {
    assert.equal(await take(challenge), undefined)
    assert.equal(await look(challenge), undefined)
  }
  assert.equal(await loginUrl(), first)
})

test('a step-up that the sign-in of this session was for already is refused for good: another would be a loop', async () => {
  const { refusal } = setUp()
  const error = await refusal({ ...SESSION, steppedUp: ['other', stepUpFingerprint(STEP_UP)] })
  assert.equal(error.code, 'access_denied')
  assert.deepEqual(error.details, { reason: 'step_up_did_not_help' })
  const another = { ...SESSION, steppedUp: [stepUpFingerprint({ ...STEP_UP, maxAge: 60 })] }
  assert.equal((await refusal(another)).code, 'reauthentication_required')
})

test('a step-up that the sign-in after it has undone is refused for five minutes, and no chain of them is a loop', async () => {
  const { refusal, loginUrl, look, clock } = setUp()
  const codeOf = async (...given: Parameters<typeof refusal>) => (await refusal(...given)).code
  const wanted = (acrValues: string) => ({ ...STEP_UP, acrValues })
  clock.at = 1_000_000
  let session: NonNullable<Parameters<typeof refusal>[0]> = SESSION
  for (const [index, acrValues] of ['a', 'b', 'c'].entries()) {
    const asked = await look(challengeOf(await loginUrl(session, wanted(acrValues))))
    const steppedUp = [stepUpFingerprint(wanted(acrValues))]
    clock.at += 60_000
    session = { ...SESSION, hash: acrValues, createdAt: clock.at, steppedUp, earlierStepUps: asked?.earlier }
    assert.equal(asked?.earlier?.length ?? 0, index)
  }
  for (const acrValues of ['a', 'b', 'c'])
    assert.equal(await codeOf(session, wanted(acrValues)), 'access_denied')
  assert.equal(await codeOf(session, wanted('d')), 'reauthentication_required')
  clock.at = 1_060_000 + 300_000
  assert.equal(await codeOf(session, wanted('a')), 'reauthentication_required')
  assert.equal(await codeOf(session, wanted('b')), 'access_denied')
})

test('a step-up that has helped is asked for again when only time has passed', async () => {
  const { refusal, clock } = setUp()
  const codeOf = async (stepUp: StepUp) => {
    const session = { ...SESSION, createdAt: 0, steppedUp: [stepUpFingerprint(stepUp)] }
    return (await refusal(session, stepUp)).code
  }
  const ofApi = { ...STEP_UP, maxAge: 300 }
  const ofRoute = { ...ofApi, ofRoute: true } as const
  clock.at = 300_000
  assert.equal(await codeOf(ofApi), 'access_denied')
  clock.at = 300_001
  assert.equal(await codeOf(ofApi), 'reauthentication_required')
  assert.equal(await codeOf(STEP_UP), 'access_denied')
  // A route judges for itself whether its step-up had helped.
  assert.equal(await codeOf(ofRoute), 'access_denied')
  assert.equal(await codeOf({ ...ofRoute, hasAged: true }), 'reauthentication_required')
})

test('errors without a step-up stay as they are', async () => {
  const { withLoginUrl } = setUp()
  for (const error of [new Error('any'), new BffError('access_denied', 'no'), undefined])
    assert.equal(await withLoginUrl(error, SESSION), error)
})

test('a challenge that could not be stored is not given to the next refusal', async () => {
  const { loginUrl, failure, look } = setUp()
  failure.error = new Error('no store')
  await assert.rejects(loginUrl(), failure.error)
  failure.error = undefined
  assert.ok(await look(challengeOf(await loginUrl())))
})
