// Sorting by a click on a column's head; the page reads as well without.
document.querySelectorAll('table.sortable').forEach(function (table) {
  var body = table.tBodies[0];
  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
    var button = document.createElement('button');
    button.type = 'button';
    while (head.firstChild) button.appendChild(head.firstChild);
    head.appendChild(button);
    button.addEventListener('click', function () {
      var down = head.getAttribute('aria-sort') !== 'descending';
      Array.prototype.forEach.call(table.tHead.rows[0].cells, function (other) { other.removeAttribute('aria-sort'); });
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      function key(row) {
        var cell = row.cells[column];
        return cell.hasAttribute('data-v') ? cell.getAttribute('data-v') : cell.textContent.trim();
      }
      Array.prototype.slice.call(body.rows).sort(function (a, b) {
        var x = key(a), y = key(b);
        if (x === '' || y === '') return (x === '') - (y === '');
        var order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
        return down ? -order : order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
document.querySelectorAll('[data-filter]').forEach(function (place) {
  var field = document.createElement('input'), table = document.getElementById(place.getAttribute('data-filter'));
  field.type = 'search'; field.className = 'filter'; field.placeholder = 'Show rows that contain ...';
  field.setAttribute('aria-label', 'Show rows that contain');
  place.appendChild(field);
  field.addEventListener('input', function () {
    var wanted = field.value.toLowerCase();
    Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
      row.hidden = row.textContent.toLowerCase().indexOf(wanted) < 0;
    });
  });
});
