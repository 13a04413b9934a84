import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createSemaphore, type Semaphore } from '../../../src/async/semaphore.ts'
import { createTestClock } from '../../kit/clock.ts'

const semaphoreOf = (permits: number) => createSemaphore({ permits, refusal: () => new Error('too late') })

/** Waits under a name, and notes what came of it. */
function lineFor(semaphore: Semaphore<Error>) {
  const events: string[] = []
  function wait(name: string, entered: () => void = () => {}, forMs = 60_000) {
    const enter = () => {
      events.push(name)
      entered()
    }
    return semaphore.wait({ enter, refuse: () => events.push(`${name} gave up`) }, forMs)
  }
  return { events, wait }
}

test('no more permits are held than there are', () => {
  const semaphore = semaphoreOf(2)
  assert.deepEqual(
    [semaphore.tryAcquire(), semaphore.tryAcquire(), semaphore.tryAcquire()],
    [true, true, false],
  )
  semaphore.release()
  assert.deepEqual([semaphore.tryAcquire(), semaphore.tryAcquire()], [true, false])
})

test('permits are given in order of arrival, and newcomers overtake nobody', () => {
  const semaphore = semaphoreOf(1)
  const { events, wait } = lineFor(semaphore)
  semaphore.tryAcquire()
  wait('first', () => assert.equal(semaphore.tryAcquire(), false))
  wait('second')
  semaphore.release()
  assert.deepEqual(events, ['first'])
  semaphore.release()
  assert.deepEqual(events, ['first', 'second'])
  semaphore.release()
  assert.equal(semaphore.tryAcquire(), true)
})

test('at a pace, permits are taken in the same order, no faster, and refusals still come in time', () => {
  const clock = createTestClock()
  const semaphore = createSemaphore({ permits: 9, refusal: () => new Error('too late'), clock })
  const { events, wait } = lineFor(semaphore)
  let nextAt = 0
  semaphore.paceBy({
    delayMs: () => Math.max(0, nextAt - clock.monotonicNow()),
    began() {
      nextAt = clock.monotonicNow() + 100
    },
  })
  assert.deepEqual([semaphore.tryAcquire(), semaphore.tryAcquire()], [true, false])
  for (const name of ['first', 'second']) wait(name)
  wait('third', undefined, 150)
  wait('fourth')
  clock.advance(99)
  assert.deepEqual(events, [])
  clock.advance(1)
  assert.deepEqual(events, ['first'])
  semaphore.release()
  assert.deepEqual(events, ['first'], 'a permit that comes back is no turn')
  clock.advance(200)
  assert.deepEqual(events, ['first', 'third gave up', 'second', 'fourth'])
  wait('fifth')
  wait('sixth')
  semaphore.paceBy(undefined)
  assert.deepEqual(events.slice(4), ['fifth', 'sixth'], 'without a pace all go that may')
  assert.equal(semaphore.tryAcquire(), true)
})

test('a waiter that stops waiting leaves the line', () => {
  const semaphore = semaphoreOf(1)
  const { events, wait } = lineFor(semaphore)
  semaphore.tryAcquire()
  const stop = wait('first')
  wait('second')
  stop()
  semaphore.release()
  stop()
  assert.deepEqual(events, ['second'])
})

test('a waiter waits no longer than it wishes', () => {
  const clock = createTestClock()
  const semaphore = createSemaphore({ permits: 1, refusal: () => new Error('too late'), clock })
  const { events, wait } = lineFor(semaphore)
  semaphore.tryAcquire()
  wait('first', undefined, 100)
  wait('second', undefined, 50)
  clock.advance(99)
  assert.deepEqual(events, ['second gave up'])
  semaphore.release()
  clock.advance(1)
  assert.deepEqual(events, ['second gave up', 'first'])
})

test('a long line of waiters that release at once ends without a deep stack', () => {
  const semaphore = semaphoreOf(1)
  const { events, wait } = lineFor(semaphore)
  semaphore.tryAcquire()
  for (let i = 0; i < 100_000; i++) wait(String(i), () => semaphore.release())
  semaphore.release()
  assert.equal(events.length, 100_000)
  assert.equal(semaphore.tryAcquire(), true)
})

test('run holds a permit until its work ends, however it ends', async () => {
  const semaphore = semaphoreOf(1)
  assert.equal(await semaphore.run(async () => semaphore.tryAcquire(), 1_000), false)
  await assert.rejects(
    semaphore.run(() => Promise.reject(new Error('the work failed')), 1_000),
    /the work failed/,
  )
  assert.equal(semaphore.tryAcquire(), true)
})

test('run and wait stand in one line', async () => {
  const semaphore = semaphoreOf(1)
  const { events, wait } = lineFor(semaphore)
  semaphore.tryAcquire()
  const ran = semaphore.run(async () => void events.push('second'), 1_000)
  wait('third', () => semaphore.release())
  semaphore.release()
  await ran
  assert.deepEqual(events, ['second', 'third'])
})

test('a waiter that comes when enough wait is refused at once, and one in time refused gets no permit later', async () => {
  const clock = createTestClock()
  const seen: number[] = []
  const refusal = () => new Error('not in time')
  const semaphore = createSemaphore({
    ...{ permits: 1, maxWaiting: 2, refusal, clock },
    observe: (waiting) => void seen.push(waiting),
  })
  semaphore.tryAcquire()
  const work = async () => assert.fail('ran without a permit')
  const refused = [1, 2, 3].map((waitMs) => assert.rejects(semaphore.run(work, waitMs), refusal()))
  await refused[2]
  assert.deepEqual(seen, [1, 2])
  clock.advance(2)
  await Promise.all(refused)
  assert.deepEqual(seen, [1, 2, 1, 0])
  semaphore.release()
  assert.equal(semaphore.tryAcquire(), true)
})

test('a line has its limit also where it is observed by no one', async () => {
  const semaphore = createSemaphore({ permits: 1, maxWaiting: 1, refusal: () => new Error('full') })
  semaphore.tryAcquire()
  assert.equal(semaphore.isFull(), false)
  const ran = semaphore.run(async () => 'ran', 60_000)
  assert.equal(semaphore.isFull(), true)
  await assert.rejects(
    semaphore.run(async () => 'ran', 60_000),
    /full/,
  )
  semaphore.release()
  assert.equal(await ran, 'ran')
  assert.equal(semaphore.isFull(), false)
})

test('all who wait can be refused, and newcomers wait again', async () => {
  const semaphore = semaphoreOf(1)
  const { events, wait } = lineFor(semaphore)
  semaphore.tryAcquire()
  wait('first')
  const second = assert.rejects(
    semaphore.run(async () => undefined, 1_000),
    /closed/,
  )
  semaphore.refuseAll(new Error('closed'))
  await second
  wait('third')
  semaphore.release()
  assert.deepEqual(events, ['first gave up', 'third'])
})

test('any of 50,000 waiters leaves in no time', () => {
  const clock = createTestClock()
  const semaphore = createSemaphore({ permits: 1, refusal: () => new Error('too late'), clock })
  const { events, wait } = lineFor(semaphore)
  semaphore.tryAcquire()
  const stops = Array.from({ length: 50_000 }, (_, index) => wait(String(index), () => semaphore.release()))
  const startedAt = performance.now()
  for (const stop of stops.slice(1, -1).reverse()) stop()
  assert.ok(performance.now() - startedAt < 2_000, 'the line was searched for each of them')
  semaphore.release()
  assert.deepEqual(events, ['0', '49999'])
})
