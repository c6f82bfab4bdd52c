// HubSpot's official client drives the sandbox: what it sends must be understood, and what comes back
// must survive its own deserialisation. Usage: node check.mjs BASE_URL TOKEN

import assert from "node:assert/strict";
import { Client } from "@hubspot/api-client";

const [basePath, accessToken] = process.argv.slice(2);
const hubspot = new Client({ accessToken, basePath, numberOfApiCallRetries: 0 });
const { objects, associations, properties } = hubspot.crm;
const BOOKINGS = "2-50158943";
const checks = [];
const check = (name, body) => checks.push([name, body]);

const byProperty = (results, property) =>
  Object.fromEntries(results.map((result) => [result.properties[property], result]));

let contacts;
let bookings;

check("batch create makes contacts and lower-cases their addresses", async () => {
  const inputs = ["Ada@Example.com", "bob@example.com", "cyd@example.com"].map((email, number) => ({
    properties: { email, student_id: `S-${number}`, sj_credits: String(number) },
    associations: [],
    objectWriteTraceId: `create-${number}`,
  }));
  const answer = await objects.batchApi.create("contacts", { inputs });
  assert.equal(answer.status, "COMPLETE");
  assert.equal(answer.results.length, 3);
  contacts = byProperty(answer.results, "email");
  assert.ok(contacts["ada@example.com"].createdAt instanceof Date);
  assert.deepEqual(Object.keys(contacts).sort(), ["ada@example.com", "bob@example.com", "cyd@example.com"]);
});

check("batch create tells which input was refused, by its trace id", async () => {
  const inputs = [
    { properties: { email: "dee@example.com" }, associations: [], objectWriteTraceId: "good" },
    { properties: { email: "bob@example.com" }, associations: [], objectWriteTraceId: "taken" },
  ];
  const answer = await objects.batchApi.create("contacts", { inputs });
  assert.equal(answer.results.length, 1);
  assert.equal(answer.numErrors, 1);
  assert.equal(answer.errors[0].category, "CONFLICT");
  assert.deepEqual(answer.errors[0].context.objectWriteTraceId, ["taken"]);
  assert.deepEqual(answer.errors[0].context.existingId, [contacts["bob@example.com"].id]);
});

check("batch create without trace ids refuses everything with 409", async () => {
  const inputs = [
    { properties: { email: "eve@example.com" }, associations: [] },
    { properties: { email: "bob@example.com" }, associations: [] },
  ];
  const refused = await objects.batchApi.create("contacts", { inputs }).catch((error) => error);
  assert.equal(refused.code, 409);
  assert.match(refused.body.message, /^Contact already exists\. Existing ID: \d+$/);
});

check("batch upsert creates, and then updates the same record", async () => {
  const upsert = (token_used) =>
    objects.batchApi.upsert(BOOKINGS, {
      inputs: ["B-1", "B-2"].map((id) => ({
        id,
        idProperty: "booking_id",
        objectWriteTraceId: id,
        properties: { booking_id: id, token_used, exam_date: "2026-12-01" },
      })),
    });
  const first = await upsert("one");
  assert.ok(first.results.every((result) => result._new === true));
  bookings = byProperty(first.results, "booking_id");
  const second = await upsert("two");
  assert.ok(second.results.every((result) => result._new === false));
  assert.equal(byProperty(second.results, "booking_id")["B-1"].id, bookings["B-1"].id);
});

check("batch update writes by id and names the record that is not there", async () => {
  const answer = await objects.batchApi.update("contacts", {
    inputs: [
      { id: contacts["ada@example.com"].id, properties: { sj_credits: "7" } },
      { id: "424242", properties: { sj_credits: "7" } },
    ],
  });
  assert.equal(answer.results.length, 1);
  assert.equal(answer.results[0].properties.sj_credits, "7");
  assert.equal(answer.errors[0].category, "OBJECT_NOT_FOUND");
  assert.deepEqual(answer.errors[0].context.ids, ["424242"]);
});

check("batch read finds by id and by unique property", async () => {
  const byId = await objects.batchApi.read("contacts", {
    inputs: [{ id: contacts["ada@example.com"].id }],
    properties: ["sj_credits", "lastname"],
    propertiesWithHistory: [],
  });
  assert.equal(byId.results[0].properties.sj_credits, "7");
  assert.equal(byId.results[0].properties.lastname, null);
  const byKey = await objects.batchApi.read(BOOKINGS, {
    inputs: [{ id: "B-1" }, { id: "B-9" }],
    idProperty: "booking_id",
    properties: ["booking_id", "exam_date"],
    propertiesWithHistory: [],
  });
  assert.equal(byKey.results[0].properties.exam_date, "2026-12-01");
  assert.deepEqual(byKey.errors[0].context.ids, ["B-9"]);
});

check("single create, get, update and archive", async () => {
  const made = await objects.basicApi.create("contacts", { properties: { email: "zoe@example.com" }, associations: [] });
  const changed = await objects.basicApi.update("contacts", made.id, { properties: { firstname: "Zoe" } });
  assert.equal(changed.properties.firstname, "Zoe");
  const read = await objects.basicApi.getById("contacts", "zoe@example.com", ["firstname"], undefined, undefined, false, "email");
  assert.equal(read.id, made.id);
  await objects.basicApi.archive("contacts", made.id);
  const gone = await objects.basicApi.getById("contacts", made.id).catch((error) => error);
  assert.equal(gone.code, 404);
});

check("search filters, sorts and pages", async () => {
  const page = (after) =>
    objects.searchApi.doSearch("contacts", {
      filterGroups: [{ filters: [{ propertyName: "student_id", operator: "HAS_PROPERTY" }] }],
      sorts: ["-sj_credits"],
      properties: ["student_id", "sj_credits"],
      limit: 2,
      after,
    });
  const first = await page("0");
  assert.equal(first.total, 3);
  assert.deepEqual(first.results.map((result) => result.properties.student_id), ["S-0", "S-2"]);
  const second = await page(first.paging.next.after);
  assert.deepEqual(second.results.map((result) => result.properties.student_id), ["S-1"]);
  assert.equal(second.paging, undefined);
});

check("paging lists every record once", async () => {
  const inputs = Array.from({ length: 25 }, (_, number) => ({
    properties: { booking_id: `P-${number}` },
    associations: [],
  }));
  await objects.batchApi.create(BOOKINGS, { inputs });
  const seen = [];
  let after;
  do {
    const page = await objects.basicApi.getPage(BOOKINGS, 10, after, ["booking_id"]);
    seen.push(...page.results.map((result) => result.properties.booking_id));
    after = page.paging?.next?.after;
  } while (after);
  assert.equal(seen.length, 27);
  assert.equal(new Set(seen).size, 27);
  const all = await hubspot.crm.contacts.getAll(2);
  assert.equal(all.length, 4);
});

check("associations: types, default, labelled, read, removed", async () => {
  const [booking, contact] = [bookings["B-1"].id, contacts["ada@example.com"].id];
  const types = await associations.v4.schema.definitionsApi.getAll(BOOKINGS, "contacts");
  const plain = types.results.find((type) => type.label === null);
  const label = types.results.find((type) => type.label === "Guardian");
  assert.equal(plain.category, "USER_DEFINED");

  const made = await associations.v4.batchApi.createDefault(BOOKINGS, "contacts", {
    inputs: [{ _from: { id: booking }, to: { id: contact } }],
  });
  assert.equal(made.status, "COMPLETE");
  assert.ok(made.results.some((result) => result.associationSpec.associationTypeId === plain.typeId));

  const labelled = await associations.v4.batchApi.create(BOOKINGS, "contacts", {
    inputs: [
      {
        _from: { id: booking },
        to: { id: contact },
        types: [{ associationCategory: "USER_DEFINED", associationTypeId: label.typeId }],
      },
    ],
  });
  assert.deepEqual(labelled.results[0].labels, ["Guardian"]);

  const read = await associations.v4.batchApi.getPage(BOOKINGS, "contacts", {
    inputs: [{ id: booking }, { id: bookings["B-2"].id }],
  });
  assert.equal(read.results.length, 1);
  assert.equal(String(read.results[0].to[0].toObjectId), contact);
  assert.equal(read.results[0].to[0].associationTypes.length, 2);
  assert.equal(read.errors[0].subCategory, "crm.associations.NO_ASSOCIATIONS_FOUND");

  const listed = await associations.v4.basicApi.getPage("contacts", contact, BOOKINGS);
  assert.equal(String(listed.results[0].toObjectId), booking);

  await associations.v4.batchApi.archive(BOOKINGS, "contacts", {
    inputs: [{ _from: { id: booking }, to: [{ id: contact }] }],
  });
  const left = await associations.v4.basicApi.getPage(BOOKINGS, booking, "contacts");
  assert.equal(left.results.length, 0);
});

check("create with an association, and reading it back", async () => {
  const answer = await objects.batchApi.create("companies", {
    inputs: [
      {
        properties: { name: "Acme" },
        associations: [
          {
            to: { id: contacts["bob@example.com"].id },
            types: [{ associationCategory: "HUBSPOT_DEFINED", associationTypeId: 280 }],
          },
        ],
      },
    ],
  });
  const read = await objects.basicApi.getById("companies", answer.results[0].id, ["name"], undefined, ["contacts"]);
  assert.equal(read.associations.contacts.results[0].id, contacts["bob@example.com"].id);
});

check("property definitions", async () => {
  const all = await properties.coreApi.getAll(BOOKINGS);
  const key = all.results.find((property) => property.name === "booking_id");
  assert.equal(key.hasUniqueValue, true);
  const one = await properties.coreApi.getByName("contacts", "sj_credits");
  assert.equal(one.type, "number");
});

for (const [name, body] of checks) {
  try {
    await body();
    console.log(`ok      ${name}`);
  } catch (error) {
    console.log(`FAILED  ${name}`);
    console.error(error);
    process.exitCode = 1;
  }
}
console.log(`${checks.length} checks`);
