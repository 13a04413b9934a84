import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createSingleFlight, type Flight, singleFlight } from '../../../src/async/single-flight.ts'

test('work runs once at a time for each key, and its callers share what comes of it', async () => {
  const flights = createSingleFlight<string>()
  const { promise, resolve } = Promise.withResolvers<string>()
  const first = flights.share('a', () => promise)
  const second = flights.share('a', async () => assert.fail('it ran twice'))
  assert.equal(await flights.share('b', async () => 'of b'), 'of b')
  assert.deepEqual([flights.has('a'), flights.has('b')], [true, false])
  resolve('of a')
  assert.deepEqual(await Promise.all([first, second]), ['of a', 'of a'])
  assert.equal(await flights.share('a', async () => 'again'), 'again')
})

test('a failure is shared too, and the next caller begins anew', async () => {
  const flights = createSingleFlight<string>()
  const failing = async () => {
    throw new Error('no')
  }
  const both = [flights.share('a', failing), flights.share('a', async () => 'not begun')]
  for (const one of both) await assert.rejects(one, /no/)
  assert.equal(await flights.share('a', async () => 'anew'), 'anew')
})

test('whoever waited for it finds it over', async () => {
  const flights = createSingleFlight<void>()
  await flights.share('a', async () => undefined)
  assert.equal(flights.has('a'), false)
  await flights.share('a', () => Promise.reject(new Error('no'))).catch(() => undefined)
  assert.equal(flights.has('a'), false)
})

test('what is forgotten serves those that share it, learns of it, and does not forget the next in turn', async () => {
  const flights = createSingleFlight<string, string>()
  const seen: Flight[] = []
  const { promise, resolve } = Promise.withResolvers<string>()
  const work = (flight: Flight) => {
    seen.push(flight)
    return promise
  }
  const [ofAnn, ofBob] = [flights.share('1', work, 'ann'), flights.share('2', work, 'bob')]
  flights.forget('ann')
  assert.deepEqual(
    seen.map(({ isForgotten }) => isForgotten),
    [true, false],
  )
  const next = flights.share('1', async () => 'next', 'ann')
  resolve('first')
  assert.deepEqual(await Promise.all([ofAnn, ofBob, next]), ['first', 'first', 'next'])

  const later = Promise.withResolvers<string>()
  flights.share('1', () => promise, 'ann')
  flights.forget()
  flights.share('1', () => later.promise, 'ann')
  await promise
  await new Promise(setImmediate)
  assert.equal(flights.has('1'), true, 'the end of a forgotten one is not the end of the one after it')
  later.resolve('')
})

test('work of one kind needs no key', async () => {
  let runs = 0
  const run = singleFlight(async () => ++runs)
  assert.deepEqual(await Promise.all([run(), run()]), [1, 1])
  assert.equal(await run(), 2)
})
