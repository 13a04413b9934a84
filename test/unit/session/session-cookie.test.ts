import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'
import { readSessionCookie, sessionIdOf, verifiedSessionId } from '../../../src/session/session.ts'

const NAME = '__Host-Http-cloakroom'

test('the session cookie is found by its exact name, wherever it stands', () => {
  for (const header of [
    `${NAME}=v`,
    `a=1; ${NAME}=v`,
    `${NAME}=v; a=1`,
    `a=1;${NAME}=v;b`,
    `x${NAME}=1; ${NAME}=v`,
  ]) {
    assert.equal(readSessionCookie(header, NAME), 'v', header)
  }
})

test('a name that only resembles it is another cookie', () => {
  const others = ['__host-http-cloakroom=v', `${NAME}-login-x=v`, `x${NAME}=v`, `a=${NAME}=v`, `${NAME}`, '']
  for (const header of others) assert.equal(readSessionCookie(header, NAME), undefined, header)
  assert.equal(readSessionCookie(undefined, NAME), undefined)
})

test('two cookies of the name are none: one of them may be planted', () => {
  assert.equal(readSessionCookie(`${NAME}=a; ${NAME}=b`, NAME), undefined)
  assert.equal(readSessionCookie(`${NAME}=a; ${NAME}=a`, NAME), undefined)
  let told = 0
  const repeated = () => {
    told += 1
  }
  for (const header of [`${NAME}=a; ${NAME}=b; ${NAME}=c`, `${NAME}=a; ${NAME}x=b`, undefined])
    readSessionCookie(header, NAME, repeated)
  assert.equal(told, 1)
})

test('the session id is what stands before the signature', () => {
  assert.equal(sessionIdOf('s%3Aabc-_1.sig%2Fx'), 'abc-_1')
  assert.equal(sessionIdOf('s:abc.sig'), 'abc')
  assert.equal(sessionIdOf('garbage'), 'garbage')
})

test('the id of a cookie counts only as the text that one of our keys has signed', () => {
  const id = 'abc-_1'
  const signature = createHmac('sha256', 'old').update(id).digest('base64').replace(/=+$/, '')
  const value = `s%3A${id}.${encodeURIComponent(signature)}`
  assert.equal(verifiedSessionId(value, ['new', 'old']), id)
  assert.equal(verifiedSessionId(`s:${id}.${signature}`, ['new', 'old']), id)
  assert.equal(verifiedSessionId(value, ['new']), undefined)
  assert.equal(verifiedSessionId(value, []), undefined)
  const others = [
    ...['', id, `s%3A${id}`, `s%3A${id}.`, `${value}A`, value.slice(0, -1), `"${value}"`],
    ...[value.replace('abc', 'abd'), value.replace('a', '%61'), value.replace('.', '%2E'), `%FF${value}`],
    ...[`${id}.${signature}`, `j%3A${id}.${signature}`, `s%3As%3A${id}.${signature}`],
  ]
  for (const other of others) assert.equal(verifiedSessionId(other, ['new', 'old']), undefined, other)
})
