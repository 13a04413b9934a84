import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createSigner } from '../../../src/demo/scripted/signing.ts'
import { fillFirstForm, metaRefresh } from '../../kit/browsers/html-forms.ts'
import { assertNoSecrets, findSecrets } from '../../kit/secrets.ts'
import { startUpstream } from '../../kit/upstream/upstream.ts'

test('a secret is found as it is, percent-encoded, in base64 and by a part of a JWT', () => {
  const secret = '0.ARoAv4j5cvGG/r0+GRqy180BHbR8'
  const jwt = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg'
  const haystacks = {
    plain: `before ${secret} after`,
    encoded: `?t=${encodeURIComponent(secret)}`,
    base64: Buffer.from(`${secret}`).toString('base64'),
    signature: 'c2lnbmF0dXJlLW9mLXRoZS10b2tlbg',
    clean: 'nothing here',
  }
  const found = findSecrets(haystacks, [secret, jwt])
  assert.deepEqual(
    found.map(({ where }) => where),
    ['plain', 'encoded', 'base64', 'signature'],
  )
  assert.ok(found.every(({ what }) => !what.includes(secret)))
})

test('an unknown JWT is reported too, unless allowed', () => {
  const haystacks = { body: '{"x":"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"}' }
  assert.throws(() => assertNoSecrets(haystacks, []), /an unknown JWT \(eyJhbG…\) in body/)
  assertNoSecrets(haystacks, [], { allowJwt: true })
})

test('an upstream checks tokens by the given keys and echoes claims instead of the token', async () => {
  const signer = await createSigner()
  const upstream = await startUpstream({ jwks: signer.jwks(), audience: 'api://orders' })
  const token = await signer.sign({ aud: 'api://orders', sub: 'alice' })
  const call = (authorization?: string) =>
    fetch(`${upstream.url}/v1/42?x=1`, { headers: authorization ? { authorization } : {} })
  assert.equal((await call()).status, 401)
  const wrong = await signer.sign({ aud: 'api://billing' })
  assert.equal((await call(`Bearer ${wrong}`)).status, 401)
  const answer = await call(`Bearer ${token}`)
  const text = await answer.text()
  const echo = JSON.parse(text)
  assert.deepEqual([echo.aud, echo.sub, echo.path, echo.query], ['api://orders', 'alice', '/v1/42', 'x=1'])
  assert.deepEqual(echo.headers.authorization, { aud: 'api://orders', sub: 'alice' })
  assertNoSecrets({ text }, [token])
  upstream.answer.status = 503
  upstream.answer.body = 'down'
  upstream.answer.times = 1
  assert.equal((await call(`Bearer ${token}`)).status, 503)
  assert.equal((await call(`Bearer ${token}`)).status, 200)
  await upstream.close()
})

test('forms are filled in as a person would, wherever their button stands', () => {
  const login = `<form method="post" action="/interaction/1"><input type="hidden" name="prompt" value="login">
    <input required type="text" name="login"><input type="password" name="password"><button>Sign in</button></form>`
  assert.deepEqual(fillFirstForm(login, { user: 'bob' }), {
    action: '/interaction/1',
    method: 'POST',
    fields: [
      ['prompt', 'login'],
      ['login', 'bob'],
      ['password', 'correct horse'],
    ],
  })
  const persons = `<form method="post"><button name="person" value="a&amp;b">A</button><button name="person" value="c">C</button></form>
    <form method="post"><input id="name" name="name" required><button>Continue</button></form>`
  assert.deepEqual(fillFirstForm(persons)?.fields, [['person', 'a&b']])
  assert.deepEqual(fillFirstForm(persons, { user: 'carol' })?.fields, [['name', 'carol']])
  const outside = `<form id="op.logoutForm" method="post" action="/end"><input type="hidden" name="xsrf" value="1"/></form>
    <button type="submit" form="op.logoutForm" value="yes" name="logout">Yes</button>`
  assert.deepEqual(fillFirstForm(outside)?.fields, [
    ['xsrf', '1'],
    ['logout', 'yes'],
  ])
  assert.equal(fillFirstForm('<p>no form</p>'), undefined)
})

test('an immediate meta refresh is read', () => {
  assert.equal(
    metaRefresh('<meta http-equiv="refresh" content="0;url=/orders?a=1&amp;b=2">'),
    '/orders?a=1&b=2',
  )
  assert.equal(metaRefresh('<meta charset="utf-8">'), undefined)
})

test('a form is sent with the button that is named, labelled or valued so', () => {
  const consent = `<form method="post" action="/consent"><button name="answer" value="accept">Yes</button>
    <button name="answer" value="deny"><b>No</b>, thanks</button><input type="submit" name="cancel" value="Cancel"></form>`
  const pressed = (press?: string) => fillFirstForm(consent, press === undefined ? {} : { press })?.fields
  assert.deepEqual(pressed(), [['answer', 'accept']])
  assert.deepEqual(pressed('deny'), [['answer', 'deny']])
  assert.deepEqual(pressed('No, thanks'), [['answer', 'deny']])
  assert.deepEqual(pressed('cancel'), [['cancel', 'Cancel']])
  assert.throws(() => pressed('maybe'), /no button called maybe/)
})
